// Says hello. The smallest useful vat.
import { makeDefaultExo } from '@metamask/kernel-utils/exo';

export function buildRootObject(_vatPowers, parameters) {
  const greeting = parameters?.greeting ?? 'Hello';
  return makeDefaultExo('greeter', {
    hello() {
      return `${greeting}!`;
    },
    greet(name) {
      return `${greeting}, ${name}!`;
    },
  });
}
