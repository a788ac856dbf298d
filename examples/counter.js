// A counter that survives restarts: its number lives in baggage.
import { makeDefaultExo } from '@metamask/kernel-utils/exo';

export function buildRootObject(_vatPowers, _parameters, baggage) {
  if (!baggage.has('count')) baggage.init('count', 0);
  return makeDefaultExo('counter', {
    bump(by = 1) {
      baggage.set('count', baggage.get('count') + by);
      return baggage.get('count');
    },
    read() {
      return baggage.get('count');
    },
  });
}
