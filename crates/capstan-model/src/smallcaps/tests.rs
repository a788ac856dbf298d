use super::*;
use crate::capdata::CapData;
use proptest::prelude::*;

type V = Value<KRef>;

fn kref(text: &str) -> KRef {
    text.parse().expect("a kref")
}
fn thing(text: &str, iface: &str) -> V {
    Value::Object { slot: kref(text), iface: Some(iface.into()) }
}
fn text(text: &str) -> V {
    Value::String(text.into())
}
fn capdata(body: &str, slots: &[&str]) -> CapData<KRef> {
    CapData { body: body.into(), slots: slots.iter().map(|slot| kref(slot)).collect() }
}

#[test]
fn k14_every_row_of_the_table() {
    let number = Value::Number;
    let big = |digits: &str| V::BigInt(digits.into());
    let record =
        |entries: &[(&str, V)]| V::Record(entries.iter().map(|(k, v)| ((*k).into(), v.clone())).collect());
    let rows: Vec<(V, &str)> = vec![
        (number(3.0), "#3"),
        (number(0.1), "#0.1"),
        (number(1e21), "#1e+21"),
        (number(f64::INFINITY), r##"#"#Infinity""##),
        (number(f64::NEG_INFINITY), r##"#"#-Infinity""##),
        (big("3"), r##"#"+3""##),
        (big("0"), r##"#"+0""##),
        (big("-3"), r##"#"-3""##),
        (V::Undefined, r##"#"#undefined""##),
        (V::Null, "#null"),
        (V::Bool(true), "#true"),
        (V::Bool(false), "#false"),
        (text("hi"), r##"#"hi""##),
        (text(""), r##"#"""##),
        (text("#x"), r##"#"!#x""##),
        (text("$x"), r##"#"!$x""##),
        (text("!x"), r##"#"!!x""##),
        (text("-1"), r##"#"!-1""##),
        (text("."), r##"#".""##),
        (text(" @"), r##"#" @""##),
        (V::Array(vec![number(1.0), V::Array(vec![number(2.0)])]), "#[1,[2]]"),
        (V::Array(vec![]), "#[]"),
        (V::Record(vec![]), "#{}"),
        (
            record(&[("!#", V::Null), ("a", number(2.0)), ("b", number(1.0))]),
            r##"#{"!!#":null,"a":2,"b":1}"##,
        ),
        (record(&[("#k", number(1.0))]), r##"#{"!#k":1}"##),
        (
            V::Error { name: "Error".into(), message: "boom".into(), error_id: None },
            r##"#{"#error":"boom","name":"Error"}"##,
        ),
        (
            V::Error {
                name: "TypeError".into(),
                message: "#b".into(),
                error_id: Some("error:liveSlots:v1#70004".into()),
            },
            r##"#{"#error":"!#b","errorId":"error:liveSlots:v1#70004","name":"TypeError"}"##,
        ),
        (
            V::Tagged { tag: "copySet".into(), payload: Box::new(V::Array(vec![number(1.0), number(2.0)])) },
            r##"#{"#tag":"copySet","payload":[1,2]}"##,
        ),
        (V::Symbol("foo".into()), r##"#"%foo""##),
        (V::Symbol("@@asyncIterator".into()), r##"#"%@@asyncIterator""##),
    ];
    for (value, body) in rows {
        let encoded = encode(&value);
        assert_eq!((encoded.body.as_ref(), encoded.slots.len()), (body, 0));
        assert_eq!(decode(&encoded), Ok(value), "{body}");
    }
    assert_eq!(encode(&V::Number(-0.0)).body.as_ref(), "#0");
    assert_eq!(encode(&V::Number(f64::NAN)).body.as_ref(), r##"#"#NaN""##);
    assert!(matches!(decode(&capdata(r##"#"#NaN""##, &[])), Ok(V::Number(n)) if n.is_nan()));
    assert_eq!(encode(&record(&[("b", V::Null), ("a", V::Null)])).body.as_ref(), r##"#{"a":null,"b":null}"##);
}

#[test]
fn k14_references() {
    let promise = V::Promise(kref("kp3"));
    let value =
        V::Array(vec![thing("ko1", "root"), thing("ko2", "Alleged: Thing"), promise.clone(), promise]);
    let encoded = encode(&value);
    assert_eq!(
        encoded,
        capdata(r##"#["$0.Alleged: root","$1.Alleged: Thing","&2","&2"]"##, &["ko1", "ko2", "kp3"])
    );
    let twice = encode(&V::Array(vec![thing("ko6", "thing"), thing("ko6", "thing")]));
    assert_eq!(twice, capdata(r##"#["$0.Alleged: thing","$0"]"##, &["ko6"]));
}

#[test]
fn k14_refusals() {
    for body in [
        "",
        "3",
        "#",
        "#[",
        "#{",
        "# nonsense",
        r##"#"#bogus""##,
        r##"#"+""##,
        r##"#"-x""##,
        r##"#"+1x""##,
        r##"#"\"x""##,
        r##"#"'x""##,
        r##"#"(x""##,
        r##"#")x""##,
        r##"#"*x""##,
        r##"#",x""##,
        r##"#"$""##,
        r##"#"$00""##,
        r##"#"$1""##,
        r##"#"$0x""##,
        r##"#"&0""##,
        r##"#"&2""##,
        r##"#"$99999999999999999999""##,
        r##"#{"#x":1}"##,
        r##"#{"$x":1}"##,
        r##"#{"#error":3,"name":"E"}"##,
        r##"#{"#error":"x"}"##,
        r##"#{"#tag":"x"}"##,
        r##"#{"#tag":"x","payload":1,"y":2}"##,
        r##"#{"#error":"x","name":"E","#y":1}"##,
    ] {
        assert!(decode(&capdata(body, &["ko1", "kp2"])).is_err(), "{body}");
    }
    let deep = format!("#{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(decode(&capdata(&deep, &[])), Err(SmallcapsError::NotJson));
}

#[test]
fn k15_prefix_is_not_doubled() {
    let value = capdata(r##"#"$0.Alleged: Foo""##, &["ko1"]);
    assert_eq!(encode(&decode(&value).expect("decodes")), value);
}

#[test]
fn k16_single_reference() {
    assert_eq!(single_reference(&capdata(r##"#"$0.Alleged: x""##, &["ko6"])), Some(kref("ko6")));
    assert_eq!(single_reference(&capdata(r##"#"&0""##, &["kp3"])), Some(kref("kp3")));
    assert_eq!(single_reference(&capdata(r##"#["$0.Alleged: x"]"##, &["ko6"])), None);
    assert_eq!(single_reference(&capdata(r##"#"x""##, &["ko6"])), None);
    assert_eq!(single_reference(&capdata(r##""$0""##, &["ko6"])), None);
}

#[test]
fn k18_rendered_for_people() {
    let body = r##"#["!#x","$0.Alleged: thing","&1","$0","$9","+3","#undefined","%foo",{"#error":"msg","name":"TypeError"},{"#tag":"copySet","payload":[1]},{"a":"#NaN"}]"##;
    let shown = render(&capdata(body, &["ko6", "kp3"])).expect("renders");
    let expected = r##"["#x",<ko6> (Alleged: thing),<kp3>,<ko6>,<?9>,3n,[undefined],[Symbol: foo],[TypeError: msg],{"[Tagged: copySet]":[1]},{"a":[NaN]}]"##;
    assert_eq!(shown, expected);
    assert_eq!(render(&capdata("3", &[])), Err(SmallcapsError::NoPrefix));
}

#[test]
fn numbers_as_javascript_writes_them() {
    for (number, text) in [
        (123_456_789.0, "123456789"),
        (1e20, "100000000000000000000"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.25e-9, "1.25e-9"),
        (-0.5, "-0.5"),
        (5e-324, "5e-324"),
        (12.34, "12.34"),
        (1.2e21, "1.2e+21"),
    ] {
        assert_eq!(js_number(number), text);
    }
}

fn any_value() -> impl Strategy<Value = V> {
    let special = "[!-/#$%&a\"-]{0,4}";
    let leaf = prop_oneof![
        Just(V::Undefined),
        Just(V::Null),
        any::<bool>().prop_map(V::Bool),
        proptest::num::f64::NORMAL.prop_map(V::Number),
        any::<i64>().prop_map(|n| V::BigInt(n.to_string())),
        special.prop_map(V::String),
        any::<String>().prop_map(V::String),
        special.prop_map(V::Symbol),
        (0..3u64).prop_map(|n| V::Promise(KRef::Promise(crate::id::PromiseId(n)))),
        // One interface per object, as only the first mention carries it.
        (0..3u64).prop_map(|n| V::Object { slot: KRef::Object(crate::id::ObjectId(n)), iface: None }),
        (special, special).prop_map(|(name, message)| V::Error { name, message, error_id: None }),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(V::Array),
            proptest::collection::btree_map(special, inner.clone(), 0..4)
                .prop_map(|map| V::Record(map.into_iter().collect())),
            (special, inner).prop_map(|(tag, payload)| V::Tagged { tag, payload: Box::new(payload) }),
        ]
    })
}

proptest! {
    #[test]
    fn k14_round_trip(value in any_value()) {
        prop_assert_eq!(decode(&encode(&value)), Ok(value));
    }

    #[test]
    fn decoding_never_panics(body in "#?[\\[\\]{}\",:#$&!+a0-9-]{0,24}", any in any::<String>()) {
        for body in [body, any] {
            let value = capdata(&body, &["ko1", "kp2"]);
            if let Ok(decoded) = decode(&value) {
                prop_assert!(decode(&encode(&decoded)).is_ok());
            }
            let _ = (render(&value), single_reference(&value));
        }
    }
}
