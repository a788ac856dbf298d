// Timers. The host keeps the deadlines; what is to be called is kept here.
import { host, apply } from 'capstan:lockdown';
import { offer } from 'capstan:endowments';

const DELAY_MAX = 2 ** 31 - 1;
const timers = new Map(); // id -> { callback, args, period? }
let last = 0;

const arm = (id, delay) => {
  if (!host.setTimer(id, delay)) {
    timers.delete(id);
    throw RangeError('too many timers');
  }
};
const begin = (callback, delay, args, least, repeats) => {
  if (typeof callback !== 'function') throw TypeError('a timer needs a function');
  const millis = Number(delay);
  const wait = millis >= least ? Math.min(millis, DELAY_MAX) : least;
  const id = last += 1;
  timers.set(id, { callback, args, period: repeats ? wait : undefined });
  arm(id, wait);
  return id;
};
const end = id => {
  if (timers.delete(id)) host.clearTimer(id);
};

// The host says that a timer has come due. What its callback throws is nobody's rejection, so the log has it.
export const fire = id => {
  const timer = timers.get(id);
  if (timer === undefined) return;
  if (timer.period === undefined) timers.delete(id);
  else arm(id, timer.period);
  try {
    apply(timer.callback, undefined, timer.args);
  } catch (error) {
    Promise.reject(error);
  }
};
// A timer of the runtime's own, for other modules of it.
export const after = (millis, callback) => begin(callback, millis, [], 0, false);

offer({
  setTimeout(callback, delay = 0, ...args) { return begin(callback, delay, args, 0, false); },
  setInterval(callback, delay = 0, ...args) { return begin(callback, delay, args, 1, true); },
  clearTimeout(id) { end(id); },
  clearInterval(id) { end(id); },
});
