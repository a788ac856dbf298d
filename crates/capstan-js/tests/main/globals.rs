//! The globals that a vat's configuration may ask for (04 §2).

use crate::world::{Vat, start_of};
use capstan_model::vat::{GLOBALS, VatLimits};
use std::sync::Arc;

const SOURCE: &str = "import { Far } from '@endo/far';
export const buildRootObject = () => Far('root', { run: text => (0, eval)(text), runLater: async text => (0, eval)(text) });";

fn run(globals: &[&str], program: &str) -> (bool, String) {
    let program = serde_json::Value::from(format!(" {program}"));
    let (rejected, body, _) =
        Vat::endowed(SOURCE, globals).answer(&format!("#[\"runLater\",[{program}]]"), &[]);
    (rejected, body)
}

/// Each program must be true in a vat with these globals.
fn hold(globals: &[&str], programs: &[&str]) {
    let mut vat = Vat::endowed(SOURCE, globals);
    for program in programs {
        let text = serde_json::Value::from(format!(" {program}"));
        let (rejected, body, _) = vat.answer(&format!("#[\"runLater\",[{text}]]"), &[]);
        assert_eq!((rejected, body.as_str()), (false, "#true"), "{program}");
    }
}

#[test]
fn k136_without_globals_each_of_them_is_absent() {
    for name in GLOBALS {
        let expected = if matches!(name, "Date" | "Math") { "#true" } else { "#false" };
        assert_eq!(run(&[], &format!("typeof {name} !== 'undefined'")), (false, expected.into()), "{name}");
    }
    for call in ["Date.now()", "new Date()", "Date()", "Math.random()"] {
        let (rejected, body) = run(&[], call);
        assert!(rejected && body.contains("secure mode"), "{call}: {body}");
    }
    // What one asks for brings nothing else.
    assert_eq!(
        run(&["URL"], "[typeof URLSearchParams, typeof setTimeout, typeof TextEncoder].join()").1,
        "#\"undefined,undefined,undefined\""
    );
}

#[test]
fn k137_the_clock_is_real_and_never_goes_back() {
    hold(
        &["Date"],
        &[
            "Date.now() > 1.7e12 && Number.isInteger(Date.now())",
            "let last = 0; for (let i = 0; i < 1000; i += 1) { const now = Date.now(); if (now < last) throw Error('back'); last = now; } true",
            "const d = new Date(); d instanceof Date && Math.abs(d.getTime() - Date.now()) < 10000",
            "typeof Date() === 'string' && new Date(5).getTime() === 5 && Date.UTC(1970, 0) === 0",
            "new (new Date(0)).constructor() instanceof Date",
        ],
    );
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let (_, body) = run(&["Date"], "Date.now()");
    let told: u128 = body.trim_start_matches('#').parse().unwrap();
    assert!(told >= real && told < real + 60_000, "{told} against {real}");
    assert!(run(&["Date"], "Math.random()").0);
}

#[test]
fn k137_chance_is_within_bounds_and_differs() {
    hold(
        &["Math", "crypto", "SubtleCrypto"],
        &[
            "const many = Array.from({ length: 100 }, () => Math.random()); many.every(x => x >= 0 && x < 1) && new Set(many).size === 100",
            "const a = new Uint8Array(32); crypto.getRandomValues(a) === a && a.some(x => x !== 0)",
            "crypto.getRandomValues(new Uint32Array(4)).some(x => x > 255)",
            "let name; try { crypto.getRandomValues(new Uint8Array(65537)); } catch (error) { name = error.name; } name === 'QuotaExceededError'",
            "let name; try { crypto.getRandomValues(new Float64Array(1)); } catch (error) { name = error.name; } name === 'TypeMismatchError'",
            "/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())",
            "crypto.randomUUID() !== crypto.randomUUID() && crypto.subtle instanceof SubtleCrypto",
        ],
    );
}

#[test]
fn k137_digests_and_authentication_follow_their_vectors() {
    let hex = "const hex = b => [...new Uint8Array(b)].map(x => x.toString(16).padStart(2, '0')).join(''); const e = s => new TextEncoder().encode(s);";
    let program = |text: &str| format!("(async () => {{ {hex} {text} }})()");
    hold(
        &["crypto", "TextEncoder"],
        &[
            &program("return hex(await crypto.subtle.digest('SHA-256', e('abc'))) === 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';"),
            &program("return hex(await crypto.subtle.digest({ name: 'sha-512' }, e('abc'))).startsWith('ddaf35a193617abacc417349ae204131');"),
            &program("const key = await crypto.subtle.importKey('raw', e('Jefe'), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign', 'verify']);
                const tag = await crypto.subtle.sign('HMAC', key, e('what do ya want for nothing?'));
                return hex(tag) === '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'
                  && await crypto.subtle.verify('HMAC', key, tag, e('what do ya want for nothing?')) && !await crypto.subtle.verify('HMAC', key, tag, e('x'));"),
            &program("const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-512' }, true, ['sign']);
                const raw = await crypto.subtle.exportKey('raw', key); let name; try { await crypto.subtle.verify('HMAC', key, e('x'), e('x')); } catch (error) { name = error.name; }
                return raw.byteLength === 128 && name === 'InvalidAccessError';"),
            &program("let name; try { await crypto.subtle.digest('SHA-1', e('')); } catch (error) { name = error.name; } return name === 'NotSupportedError';"),
        ],
    );
}

#[test]
fn k137_codecs_translate_both_ways() {
    hold(
        &["TextEncoder", "TextDecoder", "atob", "btoa"],
        &[
            "const t = 'aé€😀'; const b = new TextEncoder().encode(t); b.length === 10 && b instanceof Uint8Array && new TextDecoder().decode(b) === t",
            "[...new TextEncoder().encode('\\ud800')].join() === '239,191,189' && new TextEncoder().encode().length === 0",
            "new TextDecoder().decode(new Uint8Array([65, 255, 66])) === 'A\\ufffdB' && new TextDecoder().decode() === ''",
            "let name; try { new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255])); } catch (error) { name = error.name; } name === 'TypeError'",
            "const d = new TextDecoder(); const b = new TextEncoder().encode('€😀'); let s = ''; for (const x of b) s += d.decode(new Uint8Array([x]), { stream: true }); s + d.decode() === '€😀'",
            "const d = new TextDecoder(); d.decode(new Uint8Array([0xe2, 0x82]), { stream: true }) + d.decode() === '\\ufffd'",
            "new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 65])) === 'A' && new TextDecoder('utf8', { ignoreBOM: true }).decode(new Uint8Array([0xef, 0xbb, 0xbf, 65])).length === 2",
            "const into = new Uint8Array(4); const r = new TextEncoder().encodeInto('a€€', into); r.read === 2 && r.written === 4",
            "new TextDecoder().decode(new DataView(new Uint8Array([66, 65]).buffer, 1)) === 'A'",
            "let name; try { new TextDecoder('koi8-r'); } catch (error) { name = error.name; } name === 'RangeError'",
            "btoa('Hello') === 'SGVsbG8=' && btoa('ab') === 'YWI=' && btoa('') === '' && atob('SGVsbG8=') === 'Hello' && atob(' YW I') === 'ab'",
            "let s = ''; for (let i = 0; i < 256; i += 1) s += String.fromCharCode(i); atob(btoa(s)) === s",
            "const names = []; for (const f of [() => btoa('€'), () => atob('a'), () => atob('?'), () => atob('ab=')]) try { f(); } catch (error) { names.push(error.name); } names.join() === Array(4).fill('InvalidCharacterError').join()",
        ],
    );
}

#[test]
fn k137_urls_are_parsed_and_changed() {
    hold(
        &["URL", "URLSearchParams"],
        &[
            "const u = new URL('../c?x=1#h', 'https://ann:pw@example.com:8080/a/b/'); u.href === 'https://ann:pw@example.com:8080/a/c?x=1#h' && u.origin === 'https://example.com:8080' && u.host === 'example.com:8080' && u.hostname === 'example.com' && u.port === '8080' && u.username === 'ann' && u.password === 'pw'",
            "const u = new URL('HTTP://EXAMPLE.com:80/%7Ea/./b'); u.href === 'http://example.com/%7Ea/b' && `${u}` === u.toJSON()",
            "let name; try { new URL('no url'); } catch (error) { name = error.name; } name === 'TypeError' && !URL.canParse('x') && URL.parse('x') === null",
            "const u = new URL('http://a/'); u.searchParams.append('k', 'v w&'); u.href === 'http://a/?k=v+w%26' && (u.search = '?z=%C3%A9+1', u.searchParams.get('z') === 'é 1')",
            "const u = new URL('http://a/b'); u.protocol = 'https'; u.hostname = 'c'; u.port = '99'; u.pathname = '/ d'; u.hash = 'e'; u.href === 'https://c:99/%20d#e'",
            "const p = new URLSearchParams('?a=1&b=2&a=3&c'); p.getAll('a').join() === '1,3' && p.get('c') === '' && p.get('z') === null && p.size === 4 && [...p.keys()].join() === 'a,b,a,c'",
            "const p = new URLSearchParams({ b: '1', a: '2' }); p.sort(); p.set('b', '9'); p.delete('z'); `${p}` === 'a=2&b=9' && p.has('b', '9') && !p.has('b', '1')",
            "new URLSearchParams([['x', 'y']]).toString() === 'x=y' && [...new URLSearchParams('a=b')][0].join() === 'a,b'",
            "new URL('http://ünïcode.example/').hostname === 'xn--ncode-3ya0c.example' || new URL('http://ünïcode.example/').hostname.startsWith('xn--')",
        ],
    );
}

#[test]
fn k137_a_signal_tells_of_its_abort() {
    hold(
        &["AbortController", "AbortSignal"],
        &[
            "const c = new AbortController(); const told = []; c.signal.addEventListener('abort', e => told.push(e.type)); c.signal.onabort = () => told.push('on'); c.abort('why'); c.abort('again'); told.join() === 'on,abort' && c.signal.aborted && c.signal.reason === 'why'",
            "const c = new AbortController(); const f = () => { throw Error('heard'); }; c.signal.addEventListener('abort', f); c.signal.removeEventListener('abort', f); c.abort(); c.signal.reason.name === 'AbortError'",
            "let thrown; try { AbortSignal.abort(7).throwIfAborted(); } catch (error) { thrown = error; } thrown === 7",
            "const c = new AbortController(); const any = AbortSignal.any([new AbortController().signal, c.signal]); c.abort(3); any.aborted && any.reason === 3",
            "let name; try { new AbortSignal(); } catch (error) { name = error.name; } name === 'TypeError'",
        ],
    );
}

#[test]
fn k137_what_a_vat_is_given_is_hardened() {
    let walk = "const bad = []; const seen = new Set(); const visit = (o, path) => { if ((typeof o !== 'object' && typeof o !== 'function') || o === null || seen.has(o)) return;
        seen.add(o); if (o !== globalThis && !Object.isFrozen(o)) bad.push(path); visit(Object.getPrototypeOf(o), path + '^');
        for (const k of Reflect.ownKeys(o)) { if (o === globalThis && k === 'exports') continue; const d = Object.getOwnPropertyDescriptor(o, k); visit(d.value, path + '.' + String(k)); visit(d.get, path); visit(d.set, path); } };
        visit(globalThis, ''); bad.join();";
    assert_eq!(run(&GLOBALS, walk), (false, "#\"\"".into()));
}

#[test]
fn k138_a_host_may_restrict_what_vats_ask_for() {
    let start = |globals: &[&str]| {
        let mut start = start_of(1, SOURCE, VatLimits::default(), Vec::new());
        start.endowments.globals = globals.iter().map(|name| (*name).into()).collect();
        start
    };
    let allowing = |names: &[&str]| Some(names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>());
    let refused = |globals: &[&str], allowed| Vat::try_start_allowing(start(globals), allowed).err();
    assert_eq!(
        refused(&["URL", "Date"], allowing(&["Date"])).unwrap(),
        "Vat \"v1\" requested unknown global \"URL\""
    );
    assert_eq!(refused(&["Date"], allowing(&[])).unwrap(), "Vat \"v1\" requested unknown global \"Date\"");
    assert_eq!(refused(&["Date"], allowing(&["Date"])), None);
    assert_eq!(refused(&["Date", "URL"], None), None);
    assert_eq!(refused(&[], allowing(&[])), None);
    assert_eq!(refused(&["process"], None).unwrap(), "Vat \"v1\" requested unknown global \"process\"");
}
