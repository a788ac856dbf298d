// The durable map of a vat: rows `vc.1.s<key>` of its store, each capdata as JSON.
import { host, harden } from 'capstan:lockdown';
import { Far } from 'capstan:passable';

const PREFIX = 'vc.1.s';

// `released(vref)` is told when no row mentions an import any more.
export const makeBaggage = ({ encode, decode, released }) => {
  const mentions = new Map(); // vref -> in how many rows
  const names = () => host.storeKeys(PREFIX).map(row => row.slice(PREFIX.length));
  const mention = slots => {
    for (const vref of slots) mentions.set(vref, (mentions.get(vref) ?? 0) + 1);
  };
  const unmention = slots => {
    for (const vref of slots) {
      const left = mentions.get(vref) - 1;
      if (left > 0) mentions.set(vref, left);
      else {
        mentions.delete(vref);
        released(vref);
      }
    }
  };
  const row = key => {
    if (typeof key !== 'string' || !key.isWellFormed()) throw TypeError('a baggage key must be a well-formed string');
    return PREFIX + key;
  };
  const stored = key => {
    const text = host.storeGet(row(key));
    return text === undefined ? undefined : JSON.parse(text);
  };
  const mustHave = key => {
    const capdata = stored(key);
    if (capdata === undefined) throw Error(`key ${JSON.stringify(key)} not found in baggage`);
    return capdata;
  };
  // Encodes before anything is written, so that a refused value changes nothing.
  const write = (key, value, before) => {
    let capdata;
    try {
      capdata = encode(value);
    } catch (error) {
      throw TypeError(error.message.startsWith('value is not durable') ? error.message : `value is not durable: ${error.message}`);
    }
    host.storeSet(row(key), JSON.stringify(capdata));
    mention(capdata.slots);
    if (before) unmention(before.slots);
  };
  const open = ({ body, slots }) => decode(body, slots);
  for (const key of names()) mention(stored(key).slots);
  const map = Far('baggage', {
    has: key => stored(key) !== undefined,
    get: key => open(mustHave(key)),
    init: (key, value) => {
      if (stored(key) !== undefined) throw Error(`key ${JSON.stringify(key)} already in baggage`);
      write(key, value);
    },
    set: (key, value) => write(key, value, mustHave(key)),
    delete: key => {
      const before = mustHave(key);
      host.storeDelete(row(key));
      unmention(before.slots);
    },
    keys: () => harden(names()),
    values: () => harden(names().map(key => open(stored(key)))),
    entries: () => harden(names().map(key => [key, open(stored(key))])),
    getSize: () => names().length,
  });
  return { map, refersTo: vref => mentions.has(vref) };
};
