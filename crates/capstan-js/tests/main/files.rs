//! fs, as a vat sees it (04 §3).

use crate::world::{Vat, start_of};
use capstan_model::file::{FileRequest, FileVerb};
use capstan_model::vat::*;

const SOURCE: &str = "import { Far } from '@endo/far';
export const buildRootObject = () => Far('root', { run: text => (0, eval)(text), runLater: async text => (0, eval)(text) });";

fn start(access: FileAccess) -> Vat {
    let mut start = start_of(1, SOURCE, VatLimits::default(), Vec::new());
    start.endowments.files = Some(access);
    Vat::try_start(start).unwrap()
}

fn all(root: &std::path::Path) -> FileAccess {
    FileAccess { root_dir: root.to_str().unwrap().into(), exists_sync: true, read_file: true, access: true }
}

fn quoted(program: &str) -> serde_json::Value {
    format!(" {program}").into()
}

fn run(vat: &mut Vat, program: &str) -> (bool, String) {
    let (rejected, body, _) = vat.answer(&format!("#[\"run\",[{}]]", quoted(program)), &[]);
    (rejected, body)
}

fn settled(reply: &VatReply) -> Vec<(bool, String)> {
    let batches = reply.syscalls.iter().filter_map(|syscall| match syscall {
        VatSyscall::Resolve(batch) => Some(batch),
        _ => None,
    });
    batches.flatten().map(|one| (one.rejected, one.value.body.to_string())).collect()
}

#[test]
fn a_vat_has_what_it_was_given_and_no_more() {
    let home = tempfile::tempdir().unwrap();
    let shape = "[typeof fs, ...Object.keys(fs), ...Object.keys(fs.promises ?? {}), Object.isFrozen(fs)]";
    let of = |access: FileAccess| run(&mut start(access), shape).1;
    assert_eq!(of(all(home.path())), r##"#["object","existsSync","promises","readFile","access",true]"##);
    assert_eq!(
        of(FileAccess { exists_sync: false, access: false, ..all(home.path()) }),
        r##"#["object","promises","readFile",true]"##
    );
    assert_eq!(
        of(FileAccess { read_file: false, access: false, ..all(home.path()) }),
        r##"#["object","existsSync",true]"##
    );
    assert_eq!(run(&mut Vat::start(SOURCE), "typeof fs").1, "#\"undefined\"");
}

#[test]
fn whether_a_file_exists_is_told_at_once() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a"), "a").unwrap();
    std::os::unix::fs::symlink("a", home.path().join("link")).unwrap();
    let mut vat = start(all(home.path()));
    assert_eq!(
        run(&mut vat, "[fs.existsSync('a'), fs.existsSync('b'), fs.existsSync('.'), fs.existsSync('a/b')]").1,
        "#[true,false,true,false]"
    );
    for (path, why) in [
        ("../x", "fs.existsSync: ../x is outside allowed root"),
        ("link", "fs.existsSync: Symlinks are prohibited: link"),
    ] {
        let (rejected, body) = run(&mut vat, &format!("fs.existsSync('{path}')"));
        assert!(rejected && body.contains(why), "{body}");
    }
    assert!(run(&mut vat, "fs.existsSync(3)").1.contains("a path is a string"));
}

#[test]
fn reading_is_an_order_and_its_outcome_comes_later() {
    let home = tempfile::tempdir().unwrap();
    let mut vat = start(all(home.path()));
    let program = "Promise.allSettled([fs.promises.readFile('a', 'utf8'), fs.promises.readFile('b').then(x => [...x]), fs.promises.access('c'), fs.promises.access('d'), fs.promises.readFile('e', { encoding: 'latin1' })])
        .then(all => all.map(one => one.status === 'fulfilled' ? one.value : one.reason.message))";
    let reply = vat.call(&format!("#[\"runLater\",[{}]]", quoted(program)), &[]);
    let orders: Vec<_> = reply
        .syscalls
        .iter()
        .filter_map(|syscall| match syscall {
            VatSyscall::Look { id, request } => Some((*id, request.clone())),
            _ => None,
        })
        .collect();
    let order = |id, verb, path: &str| (id, FileRequest { verb, path: path.into() });
    assert_eq!(
        orders,
        [
            order(1, FileVerb::ReadFile, "a"),
            order(2, FileVerb::ReadFile, "b"),
            order(3, FileVerb::Access, "c"),
            order(4, FileVerb::Access, "d")
        ]
    );
    assert_eq!(settled(&vat.looked(1, Ok("é".into()))), []);
    assert_eq!(settled(&vat.looked(2, Ok(vec![0, 255]))), []);
    assert_eq!(settled(&vat.looked(3, Ok(Vec::new()))), []);
    let reply = vat.looked(4, Err("fs.access: d: no".into()));
    let told = r##"#["é",[0,255],"#undefined","fs.access: d: no","encoding \"latin1\" is not known"]"##;
    assert_eq!(settled(&reply), [(false, told.into())]);
    // One that nobody waits for is no matter.
    assert_eq!(vat.looked(9, Ok(Vec::new())).outcome, Ok(()));
}
