//! The encoding, each row both ways (01 §5).

use crate::collections::Dice;
use crate::world::Vat;
use capstan_model::refs::VRef;
use capstan_model::smallcaps::{Value, encode};

const SOURCE: &str = "import { Far } from '@endo/far';
export const buildRootObject = () => Far('root', { echo: x => x, make: text => (0, eval)(text), type: x => typeof x });";

#[test]
fn every_row_of_the_table_survives_a_round() {
    let mut vat = Vat::start(SOURCE);
    for text in [
        "3",
        "0.1",
        "1e+21",
        "\"#NaN\"",
        "\"#Infinity\"",
        "\"#-Infinity\"",
        "\"+3\"",
        "\"+0\"",
        "\"-3\"",
        "\"#undefined\"",
        "null",
        "true",
        "false",
        "\"hi\"",
        "\"\"",
        "\"!#x\"",
        "\"!$x\"",
        "\"!!x\"",
        "\"!-1\"",
        "\" x\"",
        "\".x\"",
        "\"/\"",
        "\"1\"",
        "\":\"",
        "\"@\"",
        "[1,[2]]",
        "{\"a\":2,\"b\":1}",
        "{\"!#k\":1}",
        "{\"__proto__\":1}",
        "{\"#error\":\"boom\",\"errorId\":\"error:liveSlots:v7#70001\",\"name\":\"Error\"}",
        "{\"#error\":\"!#b\",\"errorId\":\"!#x\",\"name\":\"TypeError\"}",
        "{\"#error\":\"b\",\"errorId\":\"x\",\"name\":\"Odd\"}",
        "{\"#tag\":\"copySet\",\"payload\":[1,2]}",
        "\"%foo\"",
        "\"%@@asyncIterator\"",
        "{\"toJSON\":1}",
    ] {
        let (rejected, body, _) = vat.answer(&format!("#[\"echo\",[{text}]]"), &[]);
        assert_eq!((rejected, body), (false, format!("#{text}")));
    }
    let args = r##"#["echo",[["$0.Alleged: thing","$1.Alleged: other","&2","&2","$0"]]]"##;
    let (_, body, slots) = vat.answer(args, &["o-1", "o-2", "p-900"]);
    assert_eq!(body, r##"#["$0.Alleged: thing","$1.Alleged: other","&2","&2","$0"]"##);
    assert_eq!(slots, ["o-1", "o-2", "p-900"]);
}

#[test]
fn values_made_by_a_vat_are_encoded_as_the_table_says() {
    let mut vat = Vat::start(SOURCE);
    for (made, body) in [
        ("-0", "#0"),
        ("({b:1,a:2})", "#{\"a\":2,\"b\":1}"),
        ("[NaN,1n,-1n]", "#[\"#NaN\",\"+1\",\"-1\"]"),
        (
            "TypeError('x', {cause: Error('y')})",
            "#{\"#error\":\"x\",\"errorId\":\"error:liveSlots:v1#70001\",\"name\":\"TypeError\"}",
        ),
        ("Symbol.for('foo')", "#\"%foo\""),
    ] {
        assert_eq!(
            vat.answer(
                &format!("#[\"make\",[\"{made}\"]]").replace("\"-0", "\"!-0").replace("\"(", "\"!("),
                &[]
            )
            .1,
            body
        );
    }
}

#[test]
fn what_does_not_pass_is_refused_by_name() {
    let mut vat = Vat::start(SOURCE);
    for (made, why) in [
        ("new Map()", "In \\\"make\\\" method of (root): result: not passable: instance of Map"),
        ("x => x", "only Far functions are"),
        ("new Date(0)", "instance of Date"),
        ("Symbol()", "unregistered"),
        ("[,1]", "holes"),
        ("a={};a.a=a", "cyclic"),
        ("[new (class Q {})]", "instance of Q"),
    ] {
        let (rejected, body, _) = vat.answer(&format!("#[\"make\",[\"{made}\"]]"), &[]);
        assert!(rejected && body.contains(why), "{made}: {body}");
    }
}

#[test]
fn malformed_bodies_reject_the_call_and_the_vat_lives_on() {
    let mut vat = Vat::start(SOURCE);
    for (body, slots) in [
        ("[\"echo\",[]]", &[][..]),
        ("#[\"echo\",[\"#what\"]]", &[]),
        ("#[\"echo\",[\"+x\"]]", &[]),
        ("#[\"echo\",[\"(x\"]]", &[]),
        ("#[\"echo\",[\"$0\"]]", &[]),
        ("#[\"echo\",[\"$0\"]]", &["p-1"]),
        ("#[\"echo\",[\"&0\"]]", &["o-1"]),
        ("#[\"echo\",[{\"#bad\":1}]]", &[]),
        ("#[\"echo\",[\"$0.x\"]]", &["o+77"]),
        ("#[\"echo\",", &[]),
    ] {
        let (rejected, answer, _) = vat.answer(body, slots);
        assert!(rejected && answer.contains("#error"), "{body}: {answer}");
    }
    assert_eq!(vat.answer("#[\"echo\",[1]]", &[]).1, "#1");
}

/// A text of few letters, among them all that the encoding gives a meaning to.
fn any_text(dice: &mut Dice) -> String {
    const LETTERS: [&str; 24] = [
        "!", "#", "$", "%", "&", "+", "-", "'", "\"", "\\", "/", " ", "a", "b", "0", "9", ".", ":", "\n",
        "\u{0}", "\u{7f}", "é", "\u{2028}", "😀",
    ];
    (0..dice.roll(5)).map(|_| LETTERS[dice.roll(LETTERS.len() as u64) as usize]).collect()
}

fn any_number(dice: &mut Dice) -> f64 {
    let number = match dice.roll(4) {
        0 => dice.roll(100) as f64,
        1 => -(dice.roll(1 << 31) as f64) / 8.0,
        2 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, 1e21, 1e-7]
            [dice.roll(7) as usize],
        _ => f64::from_bits(dice.roll(1 << 31) << 33 | dice.roll(1 << 31)),
    };
    if number.is_nan() { f64::NAN } else { number + 0.0 }
}

fn any_value(dice: &mut Dice, depth: u64) -> Value<VRef> {
    let reference = |dice: &mut Dice, kind: char| format!("{kind}-{}", dice.roll(3) + 1).parse().unwrap();
    match dice.roll(if depth == 0 { 10 } else { 13 }) {
        0 => Value::Undefined,
        1 => Value::Null,
        2 => Value::Bool(dice.roll(2) == 0),
        3 => Value::Number(any_number(dice)),
        4 => Value::BigInt(format!(
            "{}{}{}",
            ["", "-"][dice.roll(2) as usize],
            dice.roll(1 << 31) + 1,
            dice.roll(1 << 31)
        )),
        5 => Value::String(any_text(dice)),
        6 => Value::Symbol(any_text(dice)),
        7 => Value::Object { slot: reference(dice, 'o'), iface: Some("Alleged: x".into()) },
        8 => Value::Promise(reference(dice, 'p')),
        9 => Value::Error {
            name: ["Error", "TypeError", "RangeError", "Mine"][dice.roll(4) as usize].into(),
            message: any_text(dice),
            error_id: Some(any_text(dice)),
        },
        10 => Value::Array((0..dice.roll(4)).map(|_| any_value(dice, depth - 1)).collect()),
        11 => {
            let mut record = std::collections::BTreeMap::new();
            for _ in 0..dice.roll(4) {
                // A JavaScript object lists keys that are numbers first, whatever order they were written in.
                let key = Some(any_text(dice)).filter(|key| key.parse::<u32>().is_err());
                record.insert(key.unwrap_or_default(), any_value(dice, depth - 1));
            }
            Value::Record(record.into_iter().collect())
        }
        _ => Value::Tagged { tag: any_text(dice), payload: Box::new(any_value(dice, depth - 1)) },
    }
}

#[test]
fn k14_a_vat_and_the_kernel_write_every_value_alike() {
    let mut vat = Vat::start(SOURCE);
    let mut dice = Dice(14);
    for _ in 0..2_000 {
        // In a list: an answer that is itself a promise would be waited for.
        let value = Value::Array(vec![any_value(&mut dice, 4)]);
        let call =
            encode(&Value::Array(vec![Value::String("echo".into()), Value::Array(vec![value.clone()])]));
        let written = encode(&value);
        let slots: Vec<String> = call.slots.iter().map(ToString::to_string).collect();
        let (rejected, body, echoed) =
            vat.answer(&call.body, &slots.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((rejected, body.as_str(), &echoed), (false, &*written.body, &slots), "{value:?}");
    }
}
