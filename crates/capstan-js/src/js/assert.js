// `assert` in the manner of hardened JavaScript, and a console that writes to the vat's log.
import { harden, isObject } from 'capstan:lockdown';

export const show = value => {
  try {
    if (typeof value === 'string') return value;
    if (typeof value === 'bigint') return `${value}n`;
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    if (isObject(value) && Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
    if (isObject(value) && value[Symbol.toStringTag] !== undefined) return `[${String(value[Symbol.toStringTag])}]`;
    if (isObject(value) && typeof value !== 'function') return JSON.stringify(value, (_key, inner) => (typeof inner === 'bigint' ? `${inner}n` : inner)) ?? '{}';
    return String(value);
  } catch {
    return '[unprintable]';
  }
};

class Quoted {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}
const quote = value => harden(new Quoted(typeof value === 'string' ? JSON.stringify(value) : show(value)));
const bare = value => harden(new Quoted(String(value)));
const withArticle = noun => `${/^[aeiou]/i.test(noun) ? 'an' : 'a'} ${noun}`;
// A template's substitutions that are not quoted show only their type.
const details = (strings, ...values) => {
  let text = strings[0];
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    text += value instanceof Quoted ? value.text : value instanceof Error ? `(${value.name}: ${value.message})` : `(${withArticle(typeof value)})`;
    text += strings[i + 1];
  }
  return harden(new Quoted(text));
};
const makeError = (text = 'Assert failed', Constructor = Error) => harden(new Constructor(String(text)));
const fail = (text, Constructor) => {
  throw makeError(text, Constructor);
};
const Fail = (strings, ...values) => fail(details(strings, ...values));
const equal = (actual, expected, text = details`Expected ${quote(actual)} is same as ${quote(expected)}`, Constructor = RangeError) => {
  if (!Object.is(actual, expected)) fail(text, Constructor);
};
const typed = (value, type, text = details`${quote(value)} must be ${bare(withArticle(type))}`) => {
  // Null is no object for this purpose.
  const actual = value === null ? 'null' : typeof value;
  if (actual !== type) fail(text, TypeError);
};
export const assert = (condition, text = 'Check failed', Constructor = RangeError) => {
  if (!condition) fail(text, Constructor);
};
Object.assign(assert, {
  fail, Fail, equal, typeof: typed, string: (value, text) => typed(value, 'string', text), note: () => {}, details, quote, bare,
  error: makeError, makeError, makeAssert: () => assert,
});
harden(assert);
export { Fail, makeError, quote as q, bare as b, details as X };

const LEVELS = { log: 'info', info: 'info', warn: 'warn', error: 'error', debug: 'debug', trace: 'debug', dir: 'info', table: 'info', group: 'info', groupCollapsed: 'info' };
const SILENT = ['groupEnd', 'time', 'timeEnd', 'timeLog', 'count', 'countReset', 'clear', 'dirxml'];
const fillConsole = (console, write, show) => {
  for (const [name, level] of Object.entries(LEVELS)) console[name] = { [name](...args) { write(level, args.map(show).join(' ')); } }[name];
  for (const name of SILENT) console[name] = { [name]() {} }[name];
  console.assert = (condition, ...args) => {
    if (!condition) write('error', `Assertion failed: ${args.map(show).join(' ')}`);
  };
  return console;
};
export const makeConsole = (write, show) => harden(fillConsole({}, write, show));
/** A console whose lines carry tags, and that makes others with more of them; vats of the reference name themselves so. */
export const makeLogger = (write, show, tags = []) => {
  const prefix = tags.length === 0 ? '' : `[${tags.join(', ')}] `;
  const logger = fillConsole({}, (level, text) => write(level, `${prefix}${text}`), show);
  logger.subLogger = (options = {}) => {
    const { tags: more = [] } = typeof options === 'string' ? { tags: [options] } : options;
    return makeLogger(write, show, [...new Set([...tags, ...[...more].map(String)])]);
  };
  return harden(logger);
};
