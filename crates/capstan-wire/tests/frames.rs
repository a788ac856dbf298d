use crate::recordings::{as_sent, frames};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::peer::Seq;
use capstan_model::refs::RRef;
use capstan_wire::frame::{Frame, FrameError, FrameLimits, decode, encode_ack, encode_numbered};
use capstan_wire::handshake::decode_handshake;
use proptest::prelude::*;

fn rref(text: &str) -> RRef {
    text.parse().unwrap()
}
fn body_of(text: &str) -> Result<Frame, FrameError> {
    decode(text, &FrameLimits::default()).unwrap().body.unwrap()
}

#[test]
fn recorded_frames_survive_byte_for_byte() {
    let (mut numbered, mut acks, mut refused) = (0, 0, 0);
    for (file, text) in frames() {
        if decode_handshake(&text).is_ok() {
            continue;
        }
        let incoming = decode(&text, &FrameLimits::default()).unwrap();
        match (incoming.seq, incoming.body) {
            (None, None) => {
                assert_eq!(encode_ack(incoming.ack.unwrap()), text);
                acks += 1;
            }
            (Some(seq), Some(Ok(frame))) => {
                assert_eq!(encode_numbered(seq, incoming.ack, &as_sent(&frame)), text, "{file}");
                numbered += 1;
            }
            // The reference writes its GC lists in its own terms instead of the receiver's (03 C-3). Read as written
            // they would name objects of the sender; they are refused, never reproduced.
            (Some(_), Some(Err(error))) => {
                assert!(file.starts_with("gc-") && text.contains("Exports"), "{file}: {text}");
                assert!(matches!(error, FrameError::BadRef { .. }), "{error}");
                refused += 1;
            }
            (seq, body) => unreachable!("{seq:?} {body:?}"),
        }
    }
    assert!(numbered > 60 && acks > 30 && refused > 0, "{numbered} {acks} {refused}");
}

#[test]
fn r77_each_delivery_kind_as_bytes() {
    let value =
        |slots: &[&str]| CapData { body: "#[]".into(), slots: slots.iter().map(|slot| rref(slot)).collect() };
    let message = |result: Option<&str>| Frame::Message {
        target: rref("ro+1"),
        message: Message { methargs: value(&["ro-2", "rp+3"]), result: result.map(rref) },
    };
    let notify = Resolution { promise: rref("rp+5"), rejected: true, value: value(&[]) };
    let rows = [
        (
            message(Some("rp-1")),
            r##"{"seq":1,"method":"deliver","params":["message","ro-1",{"methargs":{"body":"#[]","slots":["ro+2","rp-3"]},"result":"rp+1"}]}"##,
        ),
        (
            message(None),
            r##"{"seq":1,"method":"deliver","params":["message","ro-1",{"methargs":{"body":"#[]","slots":["ro+2","rp-3"]}}]}"##,
        ),
        (
            Frame::Notify(vec![notify]),
            r##"{"seq":1,"method":"deliver","params":["notify",[["rp-5",true,{"body":"#[]","slots":[]}]]]}"##,
        ),
        (
            Frame::DropExports(vec![rref("ro+4")]),
            r#"{"seq":1,"method":"deliver","params":["dropExports",["ro-4"]]}"#,
        ),
        (
            Frame::RetireExports(vec![rref("ro+4")]),
            r#"{"seq":1,"method":"deliver","params":["retireExports",["ro-4"]]}"#,
        ),
        (
            Frame::RetireImports(vec![rref("ro-4")]),
            r#"{"seq":1,"method":"deliver","params":["retireImports",["ro+4"]]}"#,
        ),
        (Frame::BringOutYourDead, r#"{"seq":1,"method":"deliver","params":["bringOutYourDead"]}"#),
        (
            Frame::RedeemUrl { url: "ocap:z@p".into(), reply_key: "1".into() },
            r#"{"seq":1,"method":"redeemURL","params":["ocap:z@p","1"]}"#,
        ),
        (
            Frame::RedeemUrlReply { reply_key: "1".into(), outcome: Ok(rref("ro-1")) },
            r#"{"seq":1,"method":"redeemURLReply","params":[true,"1","ro+1"]}"#,
        ),
        (
            Frame::RedeemUrlReply { reply_key: "1".into(), outcome: Err("no".into()) },
            r#"{"seq":1,"method":"redeemURLReply","params":[false,"1","no"]}"#,
        ),
    ];
    for (frame, text) in rows {
        assert_eq!(encode_numbered(Seq(1), None, &frame), text);
        assert_eq!(body_of(text).map(|read| as_sent(&read)), Ok(frame));
    }
    let acked = encode_numbered(Seq(2), Some(Seq(7)), &Frame::BringOutYourDead);
    assert_eq!(acked, r#"{"seq":2,"ack":7,"method":"deliver","params":["bringOutYourDead"]}"#);
    assert_eq!(encode_ack(Seq(7)), r#"{"ack":7}"#);
}

#[test]
fn poison_frames_still_tell_their_number() {
    let deliver = |params: &str| format!(r#"{{"seq":4,"ack":2,"method":"deliver","params":{params}}}"#);
    let capdata = r##"{"body":"#[]","slots":[]}"##;
    let rows = [
        (r#"{"seq":4,"ack":2}"#.to_owned(), "unknown remote message type undefined"),
        (r#"{"seq":4,"ack":2,"method":"x","params":[]}"#.to_owned(), "unknown remote message type x"),
        (r#"{"seq":4,"ack":2,"method":"redeemURL","params":["u"]}"#.to_owned(), "malformed redeemURL"),
        (deliver("{}"), "malformed params"),
        (deliver("[]"), "unknown remote delivery method undefined"),
        (deliver(r#"["x"]"#), "unknown remote delivery method x"),
        (
            deliver(&format!(r#"["message","o+7",{{"methargs":{capdata}}}]"#)),
            r#""o+7" is not a remote reference"#,
        ),
        (
            deliver(&format!(r#"["message","ro+07",{{"methargs":{capdata}}}]"#)),
            r#""ro+07" is not a remote reference"#,
        ),
        (
            deliver(&format!(r#"["message","ro-1",{{"methargs":{capdata},"result":3}}]"#)),
            "message result must be a string",
        ),
        (
            deliver(&format!(r#"["message","ro-1",{{"methargs":{capdata},"result":"ro+1"}}]"#)),
            r#""ro+1" is not a promise"#,
        ),
        (
            deliver(r##"["message","ro-1",{"methargs":{"body":"#[]","slots":["o+1"]}}]"##),
            r#""o+1" is not a remote reference"#,
        ),
        (deliver(r#"["message","ro-1",{"methargs":{"slots":[]}}]"#), "malformed capdata body"),
        (deliver(&format!(r#"["notify",[["ro+1",false,{capdata}]]]"#)), r#""ro+1" is not a promise"#),
        (deliver(&format!(r#"["notify",[["rp+1",0,{capdata}]]]"#)), "malformed settlement"),
        (deliver(r#"["dropExports",["ro+1"]]"#), r#""ro+1" is not an object that the receiver exported"#),
        (deliver(r#"["retireExports",["rp-1"]]"#), r#""rp-1" is not an object that the receiver exported"#),
        (deliver(r#"["retireImports",["ro-1"]]"#), r#""ro-1" is not an object that the sender exported"#),
        (deliver(r#"["bringOutYourDead",1]"#), "malformed bringOutYourDead"),
    ];
    for (text, error) in rows {
        let read = decode(&text, &FrameLimits::default()).unwrap();
        assert_eq!((read.seq, read.ack), (Some(Seq(4)), Some(Seq(2))));
        assert_eq!(read.body.unwrap().unwrap_err().to_string(), error, "{text}");
    }
    let bad_ack = decode(r#"{"seq":4,"ack":0}"#, &FrameLimits::default()).unwrap();
    assert_eq!((bad_ack.seq, bad_ack.ack), (Some(Seq(4)), None));
}

#[test]
fn frames_without_a_number_of_use_are_refused() {
    for (text, error) in [
        ("", "frame is not a JSON object"),
        ("[1]", "frame is not a JSON object"),
        ("{}", "frame has neither seq nor ack"),
        (r#"{"seq":0}"#, "invalid message seq: 0"),
        (r#"{"seq":1.5}"#, "invalid message seq: 1.5"),
        (r#"{"seq":"1"}"#, "invalid message seq: \"1\""),
        (r#"{"ack":-1}"#, "invalid message ack: -1"),
    ] {
        assert_eq!(decode(text, &FrameLimits::default()).unwrap_err().to_string(), error);
    }
}

#[test]
fn limits_hold() {
    let limits = FrameLimits { frame_bytes_max: 90, refs_max: 1, resolutions_max: 0, text_bytes_max: 3 };
    let body = |text: &str| decode(text, &limits).unwrap().body.unwrap().unwrap_err().to_string();
    assert_eq!(
        body(r#"{"seq":1,"method":"deliver","params":["dropExports",["ro-1","ro-2"]]}"#),
        "2 references, limit 1"
    );
    assert_eq!(body(r#"{"seq":1,"method":"deliver","params":["notify",[3]]}"#), "1 settlements, limit 0");
    assert_eq!(body(r#"{"seq":1,"method":"redeemURL","params":["long","1"]}"#), "4 bytes of text, limit 3");
    let long = decode(&" ".repeat(91), &limits);
    assert_eq!(long, Err(FrameError::TooLong { got: 91, limit: 90 }));
    let deep = format!(r#"{{"seq":1,"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(decode(&deep, &FrameLimits::default()), Err(FrameError::NotAnObject));
}

proptest! {
    #[test]
    fn decoding_never_panics(
        text in any::<String>(),
        params in "[\\[\\]{}\",:a-z0-9+-]{0,30}",
        cut in 0usize..200,
        with in "[\\[\\]{}\",0a]",
    ) {
        let shaped = format!(r#"{{"seq":1,"ack":1,"method":"deliver","params":[{params}]}}"#);
        for text in [text, shaped] {
            let _ = (decode(&text, &FrameLimits::default()), decode_handshake(&text));
        }
        for (_, mut text) in frames().into_iter().take(40) {
            if text.is_char_boundary(cut) {
                text.insert_str(cut, &with);
            }
            let _ = (decode(&text, &FrameLimits::default()), decode_handshake(&text));
        }
    }
}
