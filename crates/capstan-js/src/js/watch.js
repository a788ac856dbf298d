// Promises whose settlement a durable object waits for, whichever incarnation sees it (04 §5).
//
//   vom.pw.<n>        { promise?, body, slots }: the vpid, if others decide it; the watcher and its further arguments
//   vom.watcher.<kind>   the one instance of a watcher's kind
import { host, then } from 'capstan:lockdown';
import { isPromise, methodNames } from 'capstan:passable';
import { HandledPromise } from 'capstan:eventual';
import { vrefs, take } from 'capstan:tables';
import { pack, unpack, retain, release, objectOf } from 'capstan:stored';
import { defineDurableKind, tagOfHandle } from 'capstan:kinds';

const { storeGet, storeSet, storeDelete, storeNext } = host;
const PREFIX = 'vom.pw.';
const follow = (row, promise) => {
  const fire = (method, value) => {
    const { body, slots } = JSON.parse(storeGet(row));
    const [watcher, ...args] = unpack({ body, slots });
    storeDelete(row);
    release(slots, true);
    // What a watcher does not want to know it does not hear; what it throws is for the log.
    if (vrefs.get(watcher)?.[1] === '-' || methodNames(watcher).includes(method)) HandledPromise.applyMethod(watcher, method, [value, ...args]);
  };
  then(promise, value => fire('onFulfilled', value), reason => fire('onRejected', reason));
};

// `decidedElsewhere(vpid)`: whether another endpoint will settle it.
export const makeWatchers = ({ decidedElsewhere, awaitAgain }) => ({
  watchPromise: (promise, watcher, ...args) => {
    if (!isPromise(promise)) throw TypeError('watchPromise: a promise is needed');
    if (vrefs.get(watcher) === undefined) throw TypeError('watchPromise: a durable watcher is needed');
    const capdata = pack([watcher, ...args], true);
    const vpid = vrefs.get(promise);
    const row = `${PREFIX}${take('promiseID')}`;
    storeSet(row, JSON.stringify({ ...(vpid !== undefined && decidedElsewhere(vpid) ? { promise: vpid } : {}), ...capdata }));
    retain(capdata.slots, true);
    follow(row, promise);
  },
  // What this run's predecessor waited for. A promise that only its memory could have settled is lost.
  resumeWatches: () => {
    for (let row = storeNext(PREFIX, PREFIX); row !== undefined; row = storeNext(row, PREFIX)) {
      const { promise } = JSON.parse(storeGet(row));
      follow(row, promise === undefined ? Promise.reject(Error('[KERNEL:VAT_TERMINATED] vat restarted')) : awaitAgain(promise));
    }
  },
});

const same = value => value;
const again = reason => {
  throw reason;
};
export const providePromiseWatcher = (handle, fulfilled = same, rejected = again) => {
  const { id } = tagOfHandle(handle);
  const make = defineDurableKind(handle, undefined, {
    onFulfilled: (_context, value, ...args) => fulfilled(value, ...args),
    onRejected: (_context, reason, ...args) => rejected(reason, ...args),
  });
  const row = `vom.watcher.${id}`;
  const known = storeGet(row);
  if (known !== undefined) return objectOf(known);
  const watcher = make();
  storeSet(row, vrefs.get(watcher));
  retain([vrefs.get(watcher)], true);
  return watcher;
};
