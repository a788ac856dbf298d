//! The encoding, each row both ways (01 §5).

use crate::world::Vat;

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
