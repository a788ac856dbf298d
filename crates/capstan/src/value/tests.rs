use super::*;
use crate::error::{CliError, Code};
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_model::smallcaps::{Value, encode};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

fn read(json: &Json) -> Result<CapData<KRef>, BadValue> {
    argument(json, &BTreeMap::new()).map(|value| encode(&value))
}

fn data(body: &str, slots: &[&str]) -> CapData<KRef> {
    let slots = slots.iter().filter_map(|slot| slot.parse().ok()).collect();
    CapData { body: body.into(), slots }
}

/// The table of 07 "Values": JSON, smallcaps, and whether the result is written the same.
#[test]
fn values_are_written_as_they_are_read() {
    let rows = [
        (json!(null), data("#null", &[])),
        (json!(true), data("#true", &[])),
        (json!(3), data("#3", &[])),
        (json!(-2.5), data("#-2.5", &[])),
        (json!(9_007_199_254_740_991_i64), data("#9007199254740991", &[])),
        (json!(1e21), data("#1e+21", &[])),
        (json!("hi"), data("#\"hi\"", &[])),
        (json!("#x"), data("#\"!#x\"", &[])),
        (json!("@kref"), data("#\"@kref\"", &[])),
        (json!([1, [2]]), data("#[1,[2]]", &[])),
        (json!({"a": 1, "b": {}}), data("#{\"a\":1,\"b\":{}}", &[])),
        (json!({"@kref": "ko12"}), data("#\"$0\"", &["ko12"])),
        (json!({"@kref": "ko12", "iface": "Alleged: thing"}), data("#\"$0.Alleged: thing\"", &["ko12"])),
        (json!({"@bigint": "123"}), data("#\"+123\"", &[])),
        (json!({"@bigint": "-5"}), data("#\"-5\"", &[])),
        (json!({"@undefined": true}), data("#\"#undefined\"", &[])),
        (json!({"@number": "NaN"}), data("#\"#NaN\"", &[])),
        (json!({"@number": "Infinity"}), data("#\"#Infinity\"", &[])),
        (json!({"@number": "-Infinity"}), data("#\"#-Infinity\"", &[])),
        (json!({"@symbol": "foo"}), data("#\"%foo\"", &[])),
        (
            json!({"@error": {"name": "TypeError", "message": "boom"}}),
            data("#{\"#error\":\"boom\",\"name\":\"TypeError\"}", &[]),
        ),
        (
            json!({"@tagged": {"tag": "copyMap", "payload": [{"@bigint": "1"}]}}),
            data("#{\"#tag\":\"copyMap\",\"payload\":[\"+1\"]}", &[]),
        ),
        (json!({"@object": {"@kref": "ko1", "b": 2}}), data("#{\"@kref\":\"ko1\",\"b\":2}", &[])),
        (
            json!([{"@kref": "ko2"}, {"@kref": "ko1"}, {"@kref": "ko2"}]),
            data("#[\"$0\",\"$1\",\"$0\"]", &["ko2", "ko1"]),
        ),
    ];
    for (json, expected) in rows {
        assert_eq!(read(&json), Ok(expected.clone()), "{json}");
        assert_eq!(value_json(&expected), json, "{expected:?}");
    }
}

#[test]
fn some_values_come_out_in_their_plainest_form() {
    for (given, shown) in [
        (json!({"@object": {"a": 1}}), json!({"a": 1})),
        (json!(-0.0), json!(0)),
        (json!(3.0), json!(3)),
        (json!({"@bigint": "-000"}), json!({"@bigint": "0"})),
        (json!({"@kref": "kp7"}), json!({"@promise": "kp7"})),
        (
            json!({"@error": {"name": "Error", "message": "m", "code": "X"}}),
            json!({"@error": {"name": "Error", "message": "m"}}),
        ),
    ] {
        assert_eq!(read(&given).map(|value| value_json(&value)), Ok(shown), "{given}");
    }
    let kernel: CapData<KRef> = KernelError::object_deleted().to_capdata();
    assert_eq!(value_json(&kernel).pointer("/@error/code"), Some(&json!("OBJECT_DELETED")));
    let undecodable = data("old", &["ko1"]);
    assert_eq!(value_json(&undecodable), json!({"@capdata": {"body": "old", "slots": ["ko1"]}}));
}

#[test]
fn malformed_forms_are_refused() {
    for json in [
        json!({"@what": 1}),
        json!({"@kref": 4}),
        json!({"@kref": "ko1", "b": 2}),
        json!({"@kref": "ko1", "iface": 2}),
        json!({"@bigint": 1}),
        json!({"@bigint": ""}),
        json!({"@bigint": "-"}),
        json!({"@bigint": "1n"}),
        json!({"@undefined": false}),
        json!({"@number": "nan"}),
        json!({"@number": 1}),
        json!({"@promise": "kp7"}),
        json!({"@error": {"name": "E"}}),
        json!({"@error": {"name": "E", "message": "m", "x": "y"}}),
        json!({"@error": "boom"}),
        json!({"@tagged": {"tag": "t"}}),
        json!({"@tagged": {"tag": 1, "payload": 1}}),
        json!({"@object": [1]}),
        json!({"@object": {}, "@kref": "ko1"}),
        json!([{"deep": {"@nothing": 1}}]),
    ] {
        assert!(matches!(read(&json), Err(BadValue::Form(_))), "{json} {:?}", read(&json));
    }
    for reference in ["", "ko", "ko01", "v1", "ko-1", "ko99999999999999999999"] {
        assert!(matches!(read(&json!({"@kref": reference})), Err(BadValue::Reference(_))), "{reference}");
    }
    for url in ["", "http://x@y", "ocap:zOid", "ocap:zOid@a@b"] {
        assert!(matches!(read(&json!({"@url": url})), Err(BadValue::Url(_))), "{url}");
    }
}

#[test]
fn nesting_is_limited_where_the_decoder_still_reads_it() {
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let deepest = argument(&nested(DEPTH_MAX), &BTreeMap::new());
    let call = deepest.map(|value| encode(&Value::Array(vec![Value::Array(vec![value])])));
    assert!(call.is_ok_and(|call| capstan_model::smallcaps::decode(&call).is_ok()));
    assert_eq!(read(&nested(DEPTH_MAX + 1)), Err(BadValue::TooDeep));
}

#[test]
fn urls_are_found_and_replaced() {
    let url = "ocap:zOid@12D3";
    let json = json!([{"@url": url}, {"a": {"@url": url}}, {"@object": {"@url": "text", "b": {"@url": "ocap:z@x"}}}]);
    let mut urls = BTreeSet::new();
    urls_of(&json, &mut urls);
    assert_eq!(urls, BTreeSet::from([url.to_owned(), "ocap:z@x".to_owned()]));
    let object = KRef::Object(ObjectId(9));
    let known = urls.into_iter().map(|url| (url, object)).collect();
    let shown = argument(&json, &known).map(|value| show(&value));
    let kref = json!({"@kref": "ko9"});
    assert_eq!(shown, Ok(json!([kref, {"a": kref}, {"@object": {"@url": "text", "b": kref}}])));
}

#[test]
fn arguments_are_json_or_bare_strings() {
    for (text, expected) in [
        ("5", json!(5)),
        ("-1.5", json!(-1.5)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("\"5\"", json!("5")),
        ("{\"a\": [1]}", json!({"a": [1]})),
        ("hello", json!("hello")),
        ("hello world", json!("hello world")),
        ("", json!("")),
        ("007", json!("007")),
        ("ko4", json!("ko4")),
        ("it's {fine}", json!("it's {fine}")),
    ] {
        assert_eq!(parse_argument(text), Ok(expected), "{text}");
    }
    for text in ["{", "{\"a\":", "[1,", "[not json", "\"open", " {x}", "1e999", "-1e999"] {
        assert_eq!(parse_argument(text).map_err(|error| error.code), Err(Code::BadJson), "{text}");
    }
}

#[test]
fn rejections_carry_the_code_of_the_kernel_or_the_value_of_the_user() {
    let kernel = rejection(&KernelError::peer_restarted().to_capdata());
    assert_eq!((kernel.code.as_str(), kernel.value), ("PEER_RESTARTED", None));
    let user = rejection(&data("#{\"#error\":\"boom\",\"name\":\"TypeError\"}", &[]));
    let value = json!({"@error": {"name": "TypeError", "message": "boom"}});
    assert_eq!(user, CliError { value: Some(Box::new(value)), ..CliError::new(Code::Rejected, "boom") });
    let text = rejection(&data("#\"[KERNEL:OBJECT_DELETED] not really\"", &[]));
    assert_eq!(text.code, Code::Rejected);
    let odd = rejection(&data("#[\"&0\"]", &["kp3"]));
    assert_eq!(
        (odd.message.as_str(), odd.value.as_deref()),
        ("[<kp3>]", Some(&json!([{"@promise": "kp3"}])))
    );
    assert_eq!(show(&Value::Promise(KRef::Promise(PromiseId(3)))), json!({"@promise": "kp3"}));
}
