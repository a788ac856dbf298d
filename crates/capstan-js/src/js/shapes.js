// The door to patterns and guards: `capstan:patterns` fills it when a vat imports it, or when data first needs it.
import { host } from 'capstan:lockdown';

const provided = {};
export const provideShapes = shapes => Object.assign(provided, shapes);
const shapes = () => {
  if (provided.mustMatch === undefined) host.loadLate('capstan:patterns');
  return provided;
};
export const mustMatch = (value, pattern, label) => shapes().mustMatch(value, pattern, label);
export const matches = (value, pattern) => shapes().matches(value, pattern);
export const assertPattern = pattern => shapes().assertPattern(pattern);
// Wraps `method(context, args)` in the checks of its guard.
export const guarded = (...args) => shapes().guarded(...args);
