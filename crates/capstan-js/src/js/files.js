// fs (04 §3): what a vat may look at lies under one directory. Looking is done by the host once its crank is durable.
import { host } from 'capstan:lockdown';
import { offer } from 'capstan:endowments';

const text = value => {
  if (typeof value !== 'string') throw TypeError('a path is a string');
  return value;
};
const waiting = new Map(); // id -> { resolve, reject }
let last = 0;
const ask = (verb, path) => {
  const id = last += 1;
  const { promise, resolve, reject } = Promise.withResolvers();
  host.lookAt(id, verb, path);
  waiting.set(id, { resolve, reject });
  return promise;
};
// The host tells what it found.
export const looked = (id, bytes, why) => {
  const kit = waiting.get(id);
  waiting.delete(id);
  if (why === '') kit?.resolve(bytes);
  else kit?.reject(Error(why));
};

const encodingOf = options => {
  const encoding = typeof options === 'string' ? options : options?.encoding ?? undefined;
  if (encoding !== undefined && encoding !== 'utf8' && encoding !== 'utf-8') throw TypeError(`encoding ${JSON.stringify(encoding)} is not known`);
  return encoding;
};
const { existsSync, readFile, access } = host.files;
const fs = {};
if (existsSync) fs.existsSync = { existsSync(path) { return host.exists(text(path)); } }.existsSync;
const promises = {};
if (readFile) {
  promises.readFile = { async readFile(path, options = undefined) {
    const encoding = encodingOf(options);
    const bytes = await ask('readFile', text(path));
    return encoding === undefined ? bytes : host.utf8Decode(bytes, false);
  } }.readFile;
}
if (access) promises.access = { async access(path) { await ask('access', text(path)); } }.access;
if (readFile || access) fs.promises = promises;
offer({ fs });
