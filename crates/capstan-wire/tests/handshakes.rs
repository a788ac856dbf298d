use crate::recordings::frames;
use capstan_model::peer::{Digest, Epoch, Incarnation, Seq};
use capstan_wire::facts::{Facts, Left, SessionFacts};
use capstan_wire::handshake::{
    CONFIRM, HandshakeError, HandshakeKind, decode_handshake, encode_handshake, is_confirm,
};

fn session() -> SessionFacts {
    SessionFacts {
        believes: Some(Incarnation::new("B")),
        epoch: Epoch(3),
        base: Epoch(2),
        una: Seq(4),
        sent: Seq(9),
        recv: Seq(7),
        digest: Digest([0xab; 16]),
        left: Some(Left { life: Incarnation::new("old"), epoch: Epoch(1) }),
        classic_born: false,
        frame_bytes_max: 1 << 24,
        credit: 500,
        words: vec!["pipeline".into()],
        listen: vec!["/ip4/127.0.0.1/tcp/4001".into()],
    }
}

#[test]
fn recorded_handshakes_survive_byte_for_byte() {
    let mut seen = 0;
    for (_, text) in frames() {
        if let Ok((kind, facts)) = decode_handshake(&text) {
            assert_eq!(facts.session, None);
            assert_eq!(encode_handshake(kind, &facts), text);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn session_facts_round_trip() {
    let facts = Facts { incarnation: Incarnation::new("A"), session: Some(session()) };
    let text = encode_handshake(HandshakeKind::Handshake, &facts);
    assert_eq!(
        text,
        r#"{"method":"handshake","params":{"incarnationId":"A","v":2,"epoch":3,"base":2,"una":4,"sent":9,"recv":7,"digest":"abababababababababababababababab","believes":"B","left":{"life":"old","epoch":1},"classicBorn":false,"frameBytesMax":16777216,"credit":500,"words":["pipeline"],"listen":["/ip4/127.0.0.1/tcp/4001"]}}"#
    );
    assert_eq!(decode_handshake(&text), Ok((HandshakeKind::Handshake, facts)));
    let bare = SessionFacts { believes: None, left: None, words: vec![], listen: vec![], ..session() };
    let nascent = Facts { incarnation: Incarnation::new("A"), session: Some(bare) };
    let text = encode_handshake(HandshakeKind::HandshakeAck, &nascent);
    assert_eq!(decode_handshake(&text), Ok((HandshakeKind::HandshakeAck, nascent)));
}

#[test]
fn without_v_or_with_the_references_own_the_sender_is_classic() {
    for text in [
        r#"{"method":"handshake","params":{"incarnationId":"A","epoch":"x","new":[1]},"extra":1}"#,
        r#"{"method":"handshake","params":{"incarnationId":"A","v":1}}"#,
    ] {
        let classic = Facts { incarnation: Incarnation::new("A"), session: None };
        assert_eq!(decode_handshake(text), Ok((HandshakeKind::Handshake, classic)));
    }
}

#[test]
fn r38_malformed_facts_are_refused() {
    let facts = Facts { incarnation: Incarnation::new("A"), session: Some(session()) };
    let good = encode_handshake(HandshakeKind::Handshake, &facts);
    for (from, to) in [
        (r#""v":2"#, r#""v":"2""#),
        (r#""v":2"#, r#""v":0"#),
        (r#""epoch":3"#, r#""epoch":-3"#),
        (r#""una":4"#, r#""una":0"#),
        (r#""una":4"#, r#""una":11"#),
        (r#""base":2"#, r#""base":4"#),
        (r#""digest":"ab"#, r#""digest":"AB"#),
        (r#""recv":7,"#, ""),
        (r#""believes":"B""#, r#""believes":3"#),
        (r#""listen":["#, r#""listen":[3,"#),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert_eq!(decode_handshake(&bad), Err(HandshakeError::BadFacts), "{bad}");
    }
    let long = format!(r#"{{"method":"handshake","params":{{"incarnationId":"{}"}}}}"#, "x".repeat(70_000));
    assert_eq!(decode_handshake(&long), Err(HandshakeError::TooLong));
    for (text, method) in
        [("", "unknown"), (r#"{"method":"deliver"}"#, "deliver"), (r#"{"method":"handshake"}"#, "handshake")]
    {
        assert_eq!(decode_handshake(text), Err(HandshakeError::NotHandshake(method.into())));
    }
}

#[test]
fn r38_only_an_object_with_both_words_is_a_handshake() {
    for (text, method) in [
        ("null", "unknown"),
        ("\"handshake\"", "unknown"),
        ("[]", "unknown"),
        (r#"{"params":{"incarnationId":"A"}}"#, "unknown"),
        (r#"{"method":7,"params":{"incarnationId":"A"}}"#, "unknown"),
        (r#"{"method":"handshake","params":null}"#, "handshake"),
        (r#"{"method":"handshake","params":"A"}"#, "handshake"),
        (r#"{"method":"handshakeAck","params":{}}"#, "handshakeAck"),
        (r#"{"method":"handshakeAck","params":{"incarnationId":7}}"#, "handshakeAck"),
        (r#"{"method":"handshake","params":{"incarnationId":null}}"#, "handshake"),
        (r#"{"method":"Handshake","params":{"incarnationId":"A"}}"#, "Handshake"),
    ] {
        assert_eq!(decode_handshake(text), Err(HandshakeError::NotHandshake(method.into())), "{text}");
    }
    let text = r#"{"more":[],"method":"handshakeAck","params":{"x":null,"incarnationId":"A"}}"#;
    let classic = Facts { incarnation: Incarnation::new("A"), session: None };
    assert_eq!(decode_handshake(text), Ok((HandshakeKind::HandshakeAck, classic)));
}

#[test]
fn confirm_is_recognised() {
    assert!(is_confirm(CONFIRM) && is_confirm(r#"{"method": "handshakeConfirm", "more": 1}"#));
    assert!(!is_confirm("") && !is_confirm(r#"{"ack":1}"#));
    assert!(matches!(decode_handshake(CONFIRM), Err(HandshakeError::NotHandshake(_))));
}
