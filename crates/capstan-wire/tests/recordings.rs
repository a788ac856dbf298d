//! The recorded files, and the frames in them.

use capstan_model::refs::{RRef, Side};
use capstan_wire::frame::Frame;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

pub fn json(name: &str) -> Vec<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

/// Every recorded frame, with the name of its file.
pub fn frames() -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "jsonl"));
    files.sort();
    let mut frames = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            frames.push((name.clone(), line["msg"].as_str().unwrap().to_owned()));
        }
    }
    frames
}

/// The other end's name for the same thing: the sender's terms for a frame that was read in the receiver's.
fn across(rref: &RRef) -> RRef {
    let side = match rref.side {
        Side::Export => Side::Import,
        Side::Import => Side::Export,
    };
    RRef { side, ..*rref }
}

/// Returns a frame as its sender holds it, given how its receiver reads it.
pub fn as_sent(frame: &Frame) -> Frame {
    use capstan_model::capdata::{Message, Resolution};
    let list = |refs: &[RRef]| refs.iter().map(across).collect();
    match frame {
        Frame::Message { target, message } => Frame::Message {
            target: across(target),
            message: Message {
                methargs: message.methargs.map(across),
                result: message.result.as_ref().map(across),
            },
        },
        Frame::Notify(all) => Frame::Notify(
            all.iter()
                .map(|r| Resolution {
                    promise: across(&r.promise),
                    rejected: r.rejected,
                    value: r.value.map(across),
                })
                .collect(),
        ),
        Frame::DropExports(refs) => Frame::DropExports(list(refs)),
        Frame::RetireExports(refs) => Frame::RetireExports(list(refs)),
        Frame::RetireImports(refs) => Frame::RetireImports(list(refs)),
        Frame::BringOutYourDead => Frame::BringOutYourDead,
        Frame::RedeemUrl { .. } => frame.clone(),
        Frame::RedeemUrlReply { reply_key, outcome } => Frame::RedeemUrlReply {
            reply_key: reply_key.clone(),
            outcome: outcome.as_ref().map(across).map_err(Clone::clone),
        },
    }
}
