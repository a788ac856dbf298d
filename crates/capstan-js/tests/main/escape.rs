//! Attempts to reach ambient authority, the host, or another's intrinsics (04 §2).

use crate::world::Vat;

const SOURCE: &str = "import { Far } from '@endo/far'; export const buildRootObject = () => Far('root', { run: text => (0, eval)(text) });";

fn run(text: &str) -> (bool, String) {
    let (rejected, body, _) = Vat::start(SOURCE)
        .answer(&format!("#[\"run\",[{}]]", serde_json::Value::from(format!(" {text}"))), &[]);
    (rejected, body)
}

#[test]
fn k136_ambient_authority_is_absent() {
    let names = "performance WeakRef FinalizationRegistry Atomics SharedArrayBuffer queueMicrotask setTimeout setInterval fetch crypto process \
        require Deno gc std os print navigator DOMException InternalError __host host structuredClone";
    for name in names.split_whitespace() {
        assert_eq!(run(&format!("typeof {name}")), (false, "#\"undefined\"".into()), "{name}");
    }
    for call in ["Date.now()", "new Date()", "Date()", "Math.random()", "new (new Date(0)).constructor()"] {
        let (rejected, body) = run(call);
        assert!(rejected && body.contains("secure mode") && body.contains("TypeError"), "{call}: {body}");
    }
    assert_eq!(run("new Date(5).getTime()"), (false, "#5".into()));
}

#[test]
fn intrinsics_cannot_be_changed() {
    for attempt in [
        "'use strict'; Object.prototype.x = 1",
        "'use strict'; Array.prototype.push = 1",
        "'use strict'; Promise.prototype.then = 1",
        "'use strict'; (function*(){}).constructor.prototype.x = 1",
        "'use strict'; Object.getPrototypeOf(async function*(){}.prototype).next = 1",
        "'use strict'; Object.getPrototypeOf([][Symbol.iterator]()).next = 1",
        "'use strict'; Object.getPrototypeOf(Int8Array).from = 1",
        "'use strict'; Object.getPrototypeOf([].values().map(x => x)).next = 1",
        "'use strict'; Math.max = 1",
        "'use strict'; JSON.stringify = 1",
        "'use strict'; Object = 1",
        "'use strict'; Error.prepareStackTrace = () => 1",
        "'use strict'; harden.x = 1",
        "'use strict'; Reflect.apply = 1",
        "Object.defineProperty(globalThis, 'Promise', { value: 1 })",
        "Object.setPrototypeOf(Object.prototype, {}); 1",
    ] {
        assert!(run(attempt).0, "{attempt}");
    }
}

#[test]
fn every_intrinsic_is_frozen() {
    let walk = "const bad = []; const seen = new Set(); const visit = (o, path) => { if ((typeof o !== 'object' && typeof o !== 'function') || o === null || seen.has(o)) return;
        seen.add(o); if (o !== globalThis && !Object.isFrozen(o)) bad.push(path); visit(Object.getPrototypeOf(o), path + '^');
        for (const k of Reflect.ownKeys(o)) { if (o === globalThis && k === 'exports') continue; const d = Object.getOwnPropertyDescriptor(o, k); visit(d.value, path + '.' + String(k)); visit(d.get, path); visit(d.set, path); } };
        visit(globalThis, ''); bad.join();";
    assert_eq!(run(walk), (false, "#\"\"".into()));
}

#[test]
fn ordinary_programs_still_work() {
    for (program, value) in [
        ("class A { toString() { return 'a'; } }; `${new A()}`", "#\"a\""),
        ("const e = Error('x'); e.name = 'N'; e.message = 'y'; `${e}`", "#\"N: y\""),
        ("const o = {}; o.constructor = 1; o.toString = () => 'o'; `${o}`", "#\"o\""),
        ("function F() {} F.prototype.toString = () => 'f'; `${new F()}`", "#\"f\""),
        ("class E2 extends Error { get name() { return 'E2'; } }; `${new E2('m')}`", "#\"E2: m\""),
        ("globalThis.mine = 3; mine", "#3"),
        (
            "[typeof assert.Fail, typeof console.log, typeof HandledPromise.applyMethod, typeof harden].join()",
            "#\"function,function,function,function\"",
        ),
    ] {
        assert_eq!(run(program), (false, value.into()), "{program}");
    }
}

#[test]
fn k147_the_console_reaches_the_log() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["run",["console.log('hi', 1n, {a: 1})"]]"##, &[]);
    assert_eq!(vat.logs, ["hi 1n {\"a\":1}"]);
}
