//! Searching in strings: the language's meaning, in linear time.

use crate::world::Vat;

const SOURCE: &str = "import { Far } from '@endo/far'; export const buildRootObject = () => Far('root', { run: text => (0, eval)(text),
  search: (text, needle, from) => [text.indexOf(needle), text.lastIndexOf(needle), text.includes(needle), text.split(needle), text.split(needle, 2),
    text.replace(needle, '<$&$$>'), text.replaceAll(needle, (_, at) => `${at};`), text.indexOf(needle, from), text.lastIndexOf(needle, from)] });";

fn run(vat: &mut Vat, program: &str) -> (bool, String) {
    let program = serde_json::Value::from(format!(" {program}"));
    let (rejected, body, _) = vat.answer(&format!("#[\"run\",[{program}]]"), &[]);
    (rejected, body)
}

/// What the vat's `search` must answer, by other means. All text is ASCII, so bytes are units.
fn expected(text: &str, needle: &str, from: usize) -> serde_json::Value {
    let found = |at: Option<usize>| at.map_or(-1, |at| at as i64);
    let parts: Vec<&str> = text.split(needle).collect();
    let mut all = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices(needle) {
        all += &format!("{}{at};", &text[done..at]);
        done = at + needle.len();
    }
    all += &text[done..];
    let after = text.get(from..).and_then(|rest| rest.find(needle)).map(|at| at + from);
    let before = text[..(from + needle.len()).min(text.len())].rfind(needle);
    let one = text.replacen(needle, &format!("<{needle}$>"), 1);
    serde_json::json!([
        found(text.find(needle)),
        found(text.rfind(needle)),
        text.contains(needle),
        parts,
        parts.iter().take(2).collect::<Vec<_>>(),
        one,
        all,
        found(after),
        found(before)
    ])
}

#[test]
fn long_needles_are_found_where_short_ones_would_be() {
    let mut vat = Vat::start(SOURCE);
    let mut state = 1u64;
    let mut below = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for round in 0..150 {
        let unit: String = (0..1 + below(9)).map(|_| if below(4) == 0 { 'b' } else { 'a' }).collect();
        let mut needle = unit.repeat(10 + below(60) as usize);
        if below(2) == 0 {
            needle.insert(below(needle.len() as u64) as usize, 'b');
        }
        let mut text = String::new();
        for _ in 0..below(30) {
            match below(4) {
                0 => text += &needle,
                1 => text += &needle[below(needle.len() as u64) as usize..],
                2 => text += &unit.repeat(below(80) as usize),
                _ => text.push('b'),
            }
        }
        let from = below(text.len() as u64 + 9).min(text.len() as u64) as usize;
        let args = serde_json::json!(["search", [text, needle, from]]);
        let (_, body, _) = vat.answer(&format!("#{args}"), &[]);
        let got: serde_json::Value = serde_json::from_str(&body[1..].replace("\"!", "\"")).unwrap();
        assert_eq!(got, expected(&text, &needle, from), "round {round}: {text} / {needle}");
    }
}

#[test]
fn the_methods_coerce_and_refuse_as_the_language_says() {
    let mut vat = Vat::start(SOURCE);
    let long = "const x = 'xy'.repeat(50);";
    for (program, value) in [
        ("'a1b1'.indexOf(1)", "#1"),
        ("'undefined'.indexOf()", "#0"),
        ("'abc'.lastIndexOf('c', NaN)", "#2"),
        ("'abc'.split()", "#[\"abc\"]"),
        ("'abc'.split('')", "#[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', -1)", "#[\"a\",\"b\",\"c\"]"),
        ("'a,b'.split(',', 0)", "#[]"),
        ("'a1b'.split(/\\d/)", "#[\"a\",\"b\"]"),
        ("'aa'.replace('a', '$$')", "#\"!$a\""),
        ("'aXa'.replaceAll(/a/g, 'b')", "#\"bXb\""),
        ("'abc'.replaceAll('', '.')", "#\".a.b.c.\""),
        ("x.replace(x, '[$`$&$1$]').length", "#105"),
        ("(x + 'z').replace(x, \"$'$'\")", "#\"zzz\""),
        ("x.replace(x, undefined)", "#\"undefined\""),
        ("x.lastIndexOf(x, -5)", "#0"),
        ("x.indexOf(x, -Infinity)", "#0"),
        ("x.indexOf(x, 1)", "#-1"),
        ("x.split(x, 1)", "#[\"\"]"),
        ("x.split(x)", "#[\"\",\"\"]"),
        ("[x.includes.length, x.split.length, x.indexOf.name, x.replaceAll.length]", "#[1,2,\"indexOf\",2]"),
        ("'a'.replace({ [Symbol.replace]: (s, v) => s + v }, 'q')", "#\"aq\""),
        ("Object.keys(Object.getOwnPropertyDescriptor(String.prototype, 'split')).length", "#4"),
    ] {
        assert_eq!(run(&mut vat, &format!("{{ {long} {program} }}")), (false, value.into()), "{program}");
    }
    for program in [
        "'a'.includes(/a/)",
        "'a'.replaceAll(/a/, '')",
        "'a'.indexOf(Symbol())",
        "''.indexOf.call(null, 'a')",
        "''.split.call(undefined, 'a')",
        "'a'.split('a', 1n)",
        "'x'.indexOf('y'.repeat(99), 1n)",
    ] {
        let (rejected, body) = run(&mut vat, program);
        assert!(rejected && body.contains("TypeError"), "{program}: {body}");
    }
}
