//! Patterns, guards and exos (04 §1, §9).

use crate::world::{Vat, start_of};
use capstan_model::vat::VatLimits;

/// Runs `body`, which yields a list, in a vat; returns the list as JSON.
fn list(body: &str) -> Vec<serde_json::Value> {
    let source = format!(
        "import * as all from 'capstan'; import {{ E, Far }} from '@endo/far'; import {{ makeExo, defineExoClass, defineExoClassKit }} from '@endo/exo';
        import {{ M, matches, mustMatch }} from '@endo/patterns'; import {{ makeDefaultExo, makeDefaultInterface }} from '@metamask/kernel-utils/exo';
        import {{ makeDiscoverableExo }} from '@metamask/kernel-utils/discoverable';
        const attempt = f => {{ try {{ return f(); }} catch (e) {{ return e.message; }} }};
        const wrong = (value, pattern) => attempt(() => {{ mustMatch(value, pattern, 'x'); return matches(value, pattern) ? 'fits' : 'differs'; }});
        export const buildRootObject = () => Far('root', {{ go: async peer => {{ {body} }} }});"
    );
    let mut vat = Vat::start(&source);
    let (rejected, body, _) = vat.answer("#[\"go\",[\"$0.Alleged: peer\"]]", &["o-3"]);
    assert!(!rejected, "{body}");
    serde_json::from_str(body.strip_prefix('#').unwrap()).unwrap()
}

#[test]
fn k153_patterns_say_what_is_wrong_and_where() {
    let cases: &[(&str, &str, &str)] = &[
        ("1", "M.any()", "fits"),
        ("'foo'", "M.number()", "x: string \"foo\" - Must be a number"),
        ("undefined", "M.undefined()", "fits"),
        ("null", "M.undefined()", "x: null - Must be: \"[undefined]\""),
        ("undefined", "M.null()", "x: \"[undefined]\" - Must be: null"),
        ("true", "M.boolean()", "fits"),
        ("3", "M.bigint()", "x: number 3 - Must be a bigint"),
        ("3n", "M.nat()", "fits"),
        ("-3n", "M.nat()", "x: \"[-3n]\" - Must be non-negative"),
        (
            "10n ** 100n",
            "M.bigint()",
            &format!("x: bigint \"[1{}n]\" must not have more than 100 digits", "0".repeat(100)),
        ),
        ("'abc'", "M.string({ stringLengthLimit: 2 })", "x: string \"abc\" must not be bigger than 2"),
        ("Symbol.for('s')", "M.symbol()", "fits"),
        ("peer", "M.remotable()", "fits"),
        ("{}", "M.remotable('Issuer')", "x: {} - Must be a remotable Issuer, not copyRecord"),
        (
            "peer",
            "M.eref(M.number())",
            "x: \"[Alleged: peer]\" - Must match one of [\"[match:kind]\",\"[match:kind]\"]",
        ),
        ("Promise.resolve(1)", "M.eref(M.number())", "fits"),
        ("Promise.resolve(1)", "M.promise()", "fits"),
        ("Error('e')", "M.error()", "fits"),
        ("Error('e')", "M.key()", "x: A \"error\" cannot be a key: \"[Error: e]\""),
        ("[1]", "M.scalar()", "x: A \"copyArray\" cannot be a scalar key: [1]"),
        ("[1, 'a']", "M.array()", "fits"),
        ("[1, 'a']", "M.arrayOf(M.number())", "x: [1]: string \"a\" - Must be a number"),
        ("[1, 2, 3]", "M.array({ arrayLengthLimit: 2 })", "x: Array length 3 must be <= limit 2"),
        ("{ a: 1 }", "M.record()", "fits"),
        (
            "{ a: 1, b: 'c' }",
            "M.recordOf(M.string(), M.number())",
            "x: b: [1]: string \"c\" - Must be a number",
        ),
        ("{ a: 1 }", "{ a: M.number(), b: M.any() }", "x: {\"a\":1} - Must have missing properties [\"b\"]"),
        (
            "{ a: 1, c: 2 }",
            "{ a: M.number() }",
            "x: {\"a\":1,\"c\":2} - Must not have unexpected properties: [\"c\"]",
        ),
        ("{ a: { b: 'q' } }", "{ a: { b: M.number() } }", "x: a: b: string \"q\" - Must be a number"),
        ("[1, 'q']", "[1, M.number()]", "x: 1: string \"q\" - Must be a number"),
        (
            "[1]",
            "[1, M.number()]",
            "x: Array [1] - Must be as long as copyArray pattern: [1,\"[match:kind]\"]",
        ),
        ("{ a: 1, b: 2, c: 3 }", "M.splitRecord({ a: 1 }, { b: M.number() })", "fits"),
        (
            "{ b: 2 }",
            "M.splitRecord({ a: 1 }, { b: M.number() })",
            "x: {} - Must have missing properties [\"a\"]",
        ),
        (
            "{ a: 1, b: '2' }",
            "M.splitRecord({ a: 1 }, { b: M.number() })",
            "x: b?: string \"2\" - Must be a number",
        ),
        ("{ a: 1, b: undefined }", "M.splitRecord({ a: 1 }, { b: M.number() })", "fits"),
        ("{ a: 1, z: 2 }", "M.splitRecord({ a: 1 }, {}, {})", "x: ...rest: {\"z\":2} - Must be: {}"),
        (
            "[1, 2, 'x']",
            "M.splitArray([1], [2], M.arrayOf(M.number()))",
            "x: ...rest: [0]: string \"x\" - Must be a number",
        ),
        ("[]", "M.splitArray([1])", "x: Expected at least 1 arguments: []"),
        ("[0]", "M.splitArray([1])", "x: arg 0: 0 - Must be: 1"),
        ("[1, 3]", "M.splitArray([1], [2])", "x: arg 1?: 3 - Must be: 2"),
        ("3", "M.or(1, 2)", "x: 3 - Must match one of [1,2]"),
        ("3", "M.and(M.number(), M.gt(3))", "x: 3 - Must be > 3"),
        ("3", "M.not(M.number())", "x: 3 - Must fail negated pattern: \"[match:kind]\""),
        ("'q'", "M.opt(M.number())", "x: string \"q\" - Must be a number"),
        ("{ a: [1n, peer] }", "M.eq({ a: [1n, peer] })", "fits"),
        ("4", "M.eq(5)", "x: 4 - Must be: 5"),
        ("-1", "M.gte(0)", "x: -1 - Must be >= 0"),
        ("'b'", "M.lte('a')", "x: \"b\" - Must be <= \"a\""),
        ("1n", "M.lt(1)", "x: \"[1n]\" - Must be < 1"),
        ("[1, 2]", "M.lt([1, 3])", "fits"),
        ("() => 1", "M.any()", "x: not passable: function \"\"; only Far functions are"),
        ("1", "Promise.resolve()", "A passable of kind \"promise\" is not a pattern: \"[Promise]\""),
        (
            "1",
            "M.arrayOf(Promise.resolve())",
            "A passable of kind \"match:arrayOf\" is not a pattern: \"[match:arrayOf]\"",
        ),
    ];
    let body: Vec<String> =
        cases.iter().map(|(value, pattern, _)| format!("attempt(() => wrong({value}, {pattern}))")).collect();
    let got = list(&format!("return [{}];", body.join(",\n")));
    for ((value, pattern, want), got) in cases.iter().zip(&got) {
        assert_eq!(got, want, "{value} against {pattern}");
    }
}

#[test]
fn k153_exo_classes_and_kits_behave() {
    let got = list(
        "const CounterI = M.interface('Counter', { getValue: M.call().returns(M.number()), increment: M.call(M.number()).returns(M.number()), fail: M.call().returns(M.string()) });
        const makeCounter = defineExoClass('Counter', CounterI, (value = 0) => ({ value }), { getValue() { return this.state.value; }, increment(by) { this.state.value += by; return this.state.value; }, fail() { return this.self; } });
        const counter = makeCounter(10);
        const makeKit = defineExoClassKit('Temperature', { celsius: M.interface('Celsius', { get: M.call().returns(M.number()), set: M.call(M.number()).returns() }), fahrenheit: M.interface('Fahrenheit', { getF: M.call().returns(M.number()) }) },
          (c = 0) => ({ c }), { celsius: { get() { return this.state.c; }, set(c) { this.state.c = c; } }, fahrenheit: { getF() { return this.state.c * 9 / 5 + 32; } } });
        const { celsius, fahrenheit } = makeKit(25); const other = makeKit(0);
        const warm = fahrenheit.getF(); celsius.set(0);
        const one = makeExo('one', undefined, { echo(x) { return x; }, bad() { return () => 1; } });
        return [counter.increment(5), counter.increment(-3), attempt(() => counter.increment('foo')), attempt(() => counter.increment()), counter.increment(1, 'surplus'), attempt(() => counter.fail()),
          warm, fahrenheit.getF(), attempt(() => celsius.getF()), other.celsius.get(), attempt(() => celsius.set.call(fahrenheit, 1)),
          counter.__getMethodNames__(), counter.__getInterfaceGuard__() === CounterI, all.getInterfaceOf(celsius), all.passStyleOf(counter), Object.isFrozen(counter), attempt(() => { counter.x = 1; }),
          one.echo(1), attempt(() => one.echo(() => 1)), attempt(() => one.bad()),
          attempt(() => makeExo('x', CounterI, { getValue() {} })), attempt(() => makeExo('x', M.interface('X', {}), { extra() {} })), attempt(() => defineExoClassKit('x', undefined, () => ({}), { a: {} }))];",
    );
    let want = serde_json::json!([
        15,
        12,
        "In \"increment\" method of (Counter): arg 0: string \"foo\" - Must be a number",
        "In \"increment\" method of (Counter): Expected at least 1 arguments: []",
        13,
        "In \"fail\" method of (Counter): result: remotable \"[Alleged: Counter]\" - Must be a string",
        77,
        32,
        "not a function",
        0,
        "In \"set\" method of (Temperature celsius) may only be applied to a valid instance",
        ["__getInterfaceGuard__", "__getMethodNames__", "fail", "getValue", "increment"],
        true,
        "Alleged: Temperature celsius",
        "remotable",
        true,
        "object is not extensible",
        1,
        "In \"echo\" method of (one): not passable: function \"\"; only Far functions are",
        "In \"bad\" method of (one): result: not passable: function \"\"; only Far functions are",
        "methods [\"increment\",\"fail\"] not implemented by \"x\"",
        "methods [\"extra\"] not guarded by \"X\"",
        "A multi-facet object must have multiple facets"
    ]);
    for (got, want) in got.iter().zip(want.as_array().unwrap()) {
        assert_eq!(got, want);
    }
}

#[test]
fn guards_wait_for_what_they_are_told_to_and_leave_raw_things_alone() {
    let got = list(
        "const I = M.interface('I', { sum: M.callWhen(M.await(M.number()), M.number()).optional(M.await(M.number())).returns(M.number()), raw: M.call(M.raw()).rest(M.raw()).returns(M.raw()),
            rest: M.call(M.string()).optional(M.number()).rest(M.arrayOf(M.boolean())).returns(M.any()), [Symbol.asyncIterator]: M.call().returns(M.any()) });
        const o = makeExo('o', I, { sum: (a, b, c = 0) => a + b + c, raw: (f, ...more) => f(more.length), rest: (...args) => harden(args.length), [Symbol.asyncIterator]: () => 5 });
        const later = p => p.then(v => v, e => e.message);
        const sloppy = makeDefaultExo('s', { anything: (...args) => harden(args.length) }, makeDefaultInterface('S'));
        const told = makeDiscoverableExo('told', { hi: n => n }, { hi: { description: 'greets' } }, M.interface('Told', { hi: M.call(M.number()).returns(M.number()) }));
        return [await o.sum(Promise.resolve(1), 2), await later(o.sum(Promise.resolve('1'), 2)), await later(o.sum(1, Promise.resolve(2))), await o.sum(1, 2, Promise.resolve(4)), await later(o.sum(Promise.reject(Error('broken')), 1)),
          o.raw(n => () => n, 1, 2)(), o.rest('a'), o.rest('a', 1, true, false), attempt(() => o.rest('a', 1, true, 0)), attempt(() => o.rest('a', 'b')), o[Symbol.asyncIterator](),
          sloppy.anything(1, 2), sloppy.__getInterfaceGuard__() !== undefined, attempt(() => sloppy.anything(() => 1)), told.hi(1), attempt(() => told.hi('x')), told.__getDescription__('hi'),
          attempt(() => M.call(M.await(1)).returns()), attempt(() => M.interface('x', { a: M.any() })), attempt(() => M.call().rest(1).rest(2))];",
    );
    let want = serde_json::json!([
        3, "In \"sum\" method of (o): arg 0: string \"1\" - Must be a number", "In \"sum\" method of (o): arg 1: promise \"[Promise]\" - Must be a number", 7, "broken",
        2, 1, 4, "In \"rest\" method of (o): ...rest: [1]: number 0 - Must be a boolean", "In \"rest\" method of (o): arg 1?: string \"b\" - Must be a number", 5,
        2, true, "In \"anything\" method of (s): ...rest: [0]: not passable", 1, "In \"hi\" method of (told): arg 0: string \"x\" - Must be a number", {"hi": {"description": "greets"}},
        "M.await is for M.callWhen", "a of \"x\" is not a method guard", "there is only one guard of the rest"
    ]);
    for (i, (got, want)) in got.iter().zip(want.as_array().unwrap()).enumerate() {
        if i == 13 {
            assert!(got.as_str().unwrap().starts_with("In \"anything\" method of (s): "), "{got}");
        } else {
            assert_eq!(got, want);
        }
    }
}

#[test]
fn shapes_of_collections_and_state_are_checked_in_every_run() {
    let source = "import { M } from '@endo/patterns'; import { Far } from '@endo/far';
        const attempt = f => { try { return f(); } catch (e) { return e.message; } };
        export const buildRootObject = (_p, _q, baggage) => {
          if (!baggage.has('map')) { baggage.init('map', VatData.makeScalarBigMapStore('ages', { durable: true, keyShape: M.string(), valueShape: M.gte(0) })); baggage.init('kind', VatData.makeKindHandle('person')); }
          const make = VatData.defineDurableKind(baggage.get('kind'), age => ({ age }), { grow() { this.state.age += 1; return this.state.age; }, set(age) { this.state.age = age; } },
            { stateShape: { age: M.number() }, thisfulMethods: true, interfaceGuard: M.interface('Person', { grow: M.call().returns(M.number()), set: M.call(M.any()).returns() }) });
          const map = baggage.get('map');
          return Far('root', { go: () => [attempt(() => map.init(1, 1)), attempt(() => map.init('a', -1)), attempt(() => make('x')), make(1).grow(), attempt(() => make(1).set('y')), make(1).__getInterfaceGuard__() !== undefined, [...VatData.makeScalarBigSetStore('s').keys(M.string())].length] }); };";
    let mut vat = Vat::start(source);
    let want = r##"#["invalid key type for collection \"ages\": number 1 - Must be a string","invalid value type for collection \"ages\": -1 - Must be >= 0","state of \"person\": age: string \"x\" - Must be a number",2,"state of \"person\": age: string \"y\" - Must be a number",true,0]"##;
    assert_eq!(vat.answer("#[\"go\",[]]", &[]).1, want);
    // A vat that speaks of no pattern has its old ones checked all the same.
    let plain = "import { Far } from '@endo/far'; export const buildRootObject = (_p, _q, baggage) => {
        VatData.defineDurableKind(baggage.get('kind'), () => ({}), {});
        return Far('root', { init: (k, v) => baggage.get('map').init(k, v) }); };";
    let mut vat = Vat::try_start(start_of(1, plain, VatLimits::default(), vat.rows())).unwrap();
    assert!(vat.answer("#[\"init\",[\"a\",-1]]", &[]).1.contains("Must be >= 0"));
    assert!(!vat.answer("#[\"init\",[\"a\",1]]", &[]).0);
}
