// One side of a conversation, possibly between two kernels: meet a peer, ask it, reply to it.
// What was asked and answered is counted in baggage and survives restarts; so does the peer.
import { E } from '@endo/far';
import { makeDefaultExo } from '@metamask/kernel-utils/exo';

export function buildRootObject(_vatPowers, parameters, baggage) {
  const name = parameters?.name ?? 'chatter';
  for (const count of ['asked', 'replied']) if (!baggage.has(count)) baggage.init(count, 0);
  if (!baggage.has('log')) baggage.init('log', []);

  const count = what => baggage.set(what, baggage.get(what) + 1);
  const note = line => baggage.set('log', [...baggage.get('log'), line]);

  return makeDefaultExo('chatter', {
    // Remembers whom to ask.
    meet(peer) {
      if (baggage.has('peer')) baggage.set('peer', peer);
      else baggage.init('peer', peer);
      return `${name} is ready`;
    },
    // Asks the peer, and gives its answer.
    async ask(n) {
      count('asked');
      try {
        const answer = await E(baggage.get('peer')).reply(n);
        note(`answer ${answer}`);
        return answer;
      } catch (error) {
        note(`error ${error.message}`);
        throw error;
      }
    },
    // What the peer calls.
    reply(n) {
      count('replied');
      note(`question ${n}`);
      return n + 1;
    },
    // Asks the peer for something that takes for ever, so that a call stays in flight.
    async askForever() {
      count('asked');
      try {
        return await E(baggage.get('peer')).never();
      } catch (error) {
        note(`error ${error.message}`);
        throw error;
      }
    },
    never() {
      note('waiting');
      return new Promise(() => {});
    },
    slow() {
      return new Promise(() => {});
    },
    counts() {
      return { asked: baggage.get('asked'), replied: baggage.get('replied') };
    },
    // Everything that happened, in order.
    log() {
      return baggage.get('log');
    },
  });
}
