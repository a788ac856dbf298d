//! The fuzz targets of `fuzz/`, each for a moment: on the recorded frames, on changed ones and on noise.

#[path = "../../../fuzz/src/mangle.rs"]
mod mangle;
#[path = "../../../fuzz/src/wire.rs"]
pub mod targets;

use crate::recordings::{frames, json};
use capstan_model::peer::{Digest, Epoch, Hint, Incarnation, Seq};
use capstan_wire::facts::{Facts, Left, SessionFacts};
use capstan_wire::handshake::{CONFIRM, HandshakeKind, encode_handshake};
use mangle::mangle;

fn recorded(wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    frames().into_iter().filter(|(_, text)| wanted(text)).map(|(_, text)| text.into_bytes()).collect()
}

fn lines(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn frames_are_decoded_or_refused() {
    let mut seeds = recorded(|text| !text.contains("incarnationId"));
    seeds.extend(lines(&[
        r#"{"seq":1,"method":"deliver","params":["retireImports",["ro+1","ro+2"]]}"#,
        r#"{"seq":9007199254740993,"ack":18446744073709551615,"method":"deliver","params":["bringOutYourDead"]}"#,
        r#"{"seq":2,"method":"redeemURLReply","params":[false,"1","no"]}"#,
        r#"{"ack":7}"#,
    ]));
    mangle(&seeds, 20_000, targets::frame);
}

#[test]
fn handshakes_are_decoded_or_refused_and_always_concluded() {
    let mut seeds = recorded(|text| text.contains("incarnationId"));
    seeds.push(CONFIRM.as_bytes().to_vec());
    let life = |text: &str| Incarnation::new(text);
    for (own, other) in [("A", "B"), ("B", "A")] {
        for (believes, epoch, una, sent, recv) in [
            (None, 0, 1, 0, 0),
            (Some(other), 1, 1, 1, 0),
            (Some(other), 2, 3, 4, 5),
            (Some("C"), 2, 1, 2, 0),
        ] {
            let session = SessionFacts {
                believes: believes.map(life),
                epoch: Epoch(epoch),
                base: Epoch(0),
                una: Seq(una),
                sent: Seq(sent),
                recv: Seq(recv),
                digest: Digest([9; 16]),
                left: (sent > 1).then(|| Left { life: life(other), epoch: Epoch(1) }),
                classic_born: sent == 4,
                frame_bytes_max: 1 << 20,
                credit: 100,
                words: vec!["pipeline".into()],
                listen: vec![Hint::from("/ip4/1.2.3.4/tcp/9")],
            };
            let facts = Facts { incarnation: life(own), session: Some(session) };
            seeds.push(encode_handshake(HandshakeKind::Handshake, &facts).into_bytes());
        }
    }
    let two: Vec<Vec<u8>> =
        seeds.iter().flat_map(|a| seeds.iter().map(move |b| [a.as_slice(), b"\n", b].concat())).collect();
    seeds.extend(two);
    mangle(&seeds, 10_000, targets::handshake);
}

#[test]
fn urls_are_parsed_or_refused() {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for entry in json("ocap-url.json") {
        let texts = ["url", "urlWithRelays"].into_iter().filter_map(|key| entry[key].as_str());
        seeds.extend(texts.map(|text| text.as_bytes().to_vec()));
    }
    seeds.extend(lines(&["ocap:zOid@12D3 ?x", " OCAP:z@h, ,/a\u{1}#y", "ocap:z@h,/a,,/b,"]));
    mangle(&seeds, 20_000, targets::url);
}

#[test]
fn values_are_decoded_or_refused() {
    let mut seeds = lines(&[
        r##"#{"a":"$0.Alleged: x","b":["&1","+12","-3","#NaN","#-Infinity","!!x","#undefined","%@@iterator"]}"##,
        r##"#{"#error":"no","name":"TypeError","errorId":"error:1"}"##,
        r##"#{"#tag":"copySet","payload":["$2",-0,1.5e300,null,true]}"##,
        r##"#"$0""##,
    ]);
    for (_, text) in frames() {
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bodies = frame["params"].as_array().into_iter().flatten();
        let bodies = bodies.filter_map(|part| part["methargs"]["body"].as_str());
        seeds.extend(bodies.map(|body| body.as_bytes().to_vec()));
    }
    mangle(&seeds, 20_000, targets::smallcaps);
}

#[test]
fn redemptions_are_asked_and_answered_alike() {
    let mut seeds = lines(&["ro+1\n1", "rp-7\nkey", "z\n", "zOid\n\u{0}\"\\"]);
    seeds.push(format!("{}\n2", capstan_wire::url::oid_from_secret(&[3; 32])).into_bytes());
    mangle(&seeds, 5_000, targets::redemption);
    // Opening a sealed one takes the reference's key derivation, so only a few.
    let sealed =
        json("ocap-url.json").into_iter().filter_map(|entry| Some(entry["oid"].as_str()?.to_owned()));
    sealed.take(2).for_each(|oid| targets::redemption(oid.as_bytes()));
}
