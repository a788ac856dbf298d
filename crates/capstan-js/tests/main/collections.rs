//! Maps and sets in the store, against a model (04 §5).

use crate::world::{Vat, start_of};
use capstan_model::vat::*;

const SOURCE: &str = "import { Far } from '@endo/far';
const attempt = f => { try { return f(); } catch (e) { return e.message; } };
export const buildRootObject = (_powers, _parameters, baggage) => {
  const provide = (name, make) => { if (!baggage.has(name)) baggage.init(name, make()); return baggage.get(name); };
  const map = provide('map', () => VatData.makeScalarBigMapStore('map', { durable: true }));
  const set = provide('set', () => VatData.makeScalarBigSetStore('set', { durable: true }));
  return Far('root', {
    init: (k, v) => map.init(k, v), set: (k, v) => map.set(k, v), get: k => map.get(k), del: k => map.delete(k), has: k => map.has(k), size: () => map.getSize(),
    keys: () => [...map.keys()], values: () => [...map.values()], entries: () => [...map.entries()],
    add: k => set.add(k), drop: k => set.delete(k), members: () => [...set.keys()], clear: () => { map.clear(); set.clear(); },
    first: n => { const out = []; for (const k of map.keys()) { if (out.length === n) break; out.push(k); } return out; },
    sweep: () => { for (const k of map.keys()) map.delete(k); return map.getSize(); },
    texts: () => [attempt(() => map.get('no')), attempt(() => { map.init(1, 1); map.init(1, 1); }), attempt(() => map.init([1], 1)), attempt(() => map.init('k', new Map())),
      attempt(() => map.init(Far('x', {}), 1)), attempt(() => map.init('\\ud800', 1)), attempt(() => set.delete('x')), attempt(() => VatData.makeScalarBigWeakMapStore('w').keys())],
    methods: () => [map, set, VatData.makeScalarBigWeakMapStore('w'), VatData.makeScalarBigWeakSetStore('w')].map(c => c.__getMethodNames__().join()),
    fill: n => { for (let i = 0; i < n; i += 1) baggage.init(`entry ${i}`, { i, text: 'some text' }); },
    walk: n => { let i = 0; for (const k of baggage.keys()) { i += 1; if (i === n) break; } return i; },
    hold: x => { const v = VatData.makeScalarBigMapStore('v'); v.init('x', x); v.init(x, 'x'); const f = Far('f', {}); v.init('f', f); const s = VatData.makeScalarBigWeakSetStore('s'); s.add(f); return [v.get(x), v.get('f') === f, s.has(f), s.has(v)]; },
  });
};";

fn start(rows: crate::world::Rows) -> Vat {
    Vat::try_start(start_of(1, SOURCE, VatLimits::default(), rows)).unwrap()
}

/// A deterministic stream of numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Keys in their order, as smallcaps: booleans, numbers, bigints, objects (as they came), strings, null, symbols, undefined.
const KEYS: &[&str] = &[
    "false",
    "true",
    "\"#-Infinity\"",
    "-1e300",
    "-5",
    "-0.5",
    "0",
    "1e-300",
    "2",
    "10",
    "1e21",
    "\"#Infinity\"",
    "\"#NaN\"",
    "\"-1000\"",
    "\"-999\"",
    "\"-2\"",
    "\"-1\"",
    "\"+0\"",
    "\"+9\"",
    "\"+10\"",
    "\"+123456789012345678901234567890\"",
    "\"\"",
    "\"A\"",
    "\"a\"",
    "\"ab\"",
    "\"b|c\"",
    "\"é\"",
    "\"|x\"",
    "\"😀\"",
    "\"\u{fffd}\"",
    "null",
    "\"%a\"",
    "\"%b\"",
    "\"#undefined\"",
];

#[test]
fn k153_a_map_behaves_like_a_map_in_the_order_of_its_keys() {
    // "|x" is before "é": by code units.
    let mut order: Vec<usize> = (0..KEYS.len()).collect();
    let at = |text: &str| KEYS.iter().position(|key| *key == text).unwrap();
    order.swap(at("\"é\""), at("\"|x\""));
    let keys: Vec<&str> = order.iter().map(|&i| KEYS[i]).collect();
    let mut model: Vec<Option<u64>> = vec![None; keys.len()];
    let mut vat = start(vec![]);
    for seed in 1..=3 {
        let mut dice = Dice(seed);
        for step in 0..150u64 {
            let (i, op) = (dice.roll(keys.len() as u64) as usize, dice.roll(6));
            let key = keys[i];
            let (method, args) = match op {
                0 | 1 => ("init", format!("{key},{step}")),
                2 => ("set", format!("{key},{step}")),
                3 => ("del", key.to_owned()),
                4 => ("get", key.to_owned()),
                _ => ("has", key.to_owned()),
            };
            let (rejected, body, _) = vat.answer(&format!("#[\"{method}\",[{args}]]"), &[]);
            let known = model[i];
            let fine = match method {
                "init" => known.is_none(),
                "has" => true,
                _ => known.is_some(),
            };
            assert_eq!(!rejected, fine, "{method} {key}: {body}");
            match method {
                "init" | "set" if fine => model[i] = Some(step),
                "del" => model[i] = None,
                "get" if fine => assert_eq!(body, format!("#{}", known.unwrap())),
                "has" => assert_eq!(body, format!("#{}", known.is_some())),
                _ => {}
            }
            if dice.roll(40) == 0 {
                vat = start(vat.rows());
            }
        }
        let present = || keys.iter().zip(&model).filter_map(|(key, value)| Some((*key, (*value)?)));
        let listed = |items: Vec<String>| format!("#[{}]", items.join(","));
        let one =
            |text: String| serde_json::from_str::<serde_json::Value>(text.trim_start_matches('#')).unwrap();
        let mut all = |method: &str| one(vat.answer(&format!("#[\"{method}\",[]]"), &[]).1);
        assert_eq!(all("keys"), one(listed(present().map(|(key, _)| key.to_owned()).collect())));
        assert_eq!(all("values"), one(listed(present().map(|(_, value)| value.to_string()).collect())));
        assert_eq!(
            all("entries"),
            one(listed(present().map(|(key, value)| format!("[{key},{value}]")).collect()))
        );
        assert_eq!(all("size"), one(present().count().to_string()));
    }
}

#[test]
fn objects_are_kept_in_the_order_in_which_they_came() {
    let mut vat = start(vec![]);
    for (name, n) in [("o-9", 1), ("o-3", 2), ("o-10", 3)] {
        vat.answer(&format!("#[\"init\",[\"$0.Alleged: x\",{n}]]"), &[name]);
        vat.answer("#[\"add\",[\"$0\"]]", &[name]);
    }
    vat.deliver(VatDelivery::BringOutYourDead);
    let mut vat = start(vat.rows());
    assert_eq!(vat.answer("#[\"values\",[]]", &[]).1, "#[1,2,3]");
    assert_eq!(vat.answer("#[\"keys\",[]]", &[]).2, ["o-9", "o-3", "o-10"]);
    assert_eq!(vat.answer("#[\"members\",[]]", &[]).2, ["o-9", "o-3", "o-10"]);
    assert_eq!(vat.answer("#[\"get\",[\"$0\"]]", &["o-3"]).1, "#2");
    assert_eq!(vat.answer("#[\"sweep\",[]]", &[]).1, "#0", "a cursor goes on while entries go");
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, [], "the set still has them");
    vat.answer("#[\"clear\",[]]", &[]);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls.len(), 2);
}

#[test]
fn k153_refusals_name_the_key_and_the_collection() {
    let mut vat = start(vec![]);
    assert_eq!(
        vat.answer("#[\"texts\",[]]", &[]).1,
        r##"#["key \"no\" not found in collection \"map\"","key 1 already registered in collection \"map\"","invalid key type for collection \"map\": copyArray","value is not durable: not passable: instance of Map","key is not durable: Alleged: x","a key must be a well-formed string","key \"x\" not found in collection \"set\"","not a function"]"##
    );
    assert_eq!(
        vat.answer("#[\"methods\",[]]", &[]).1,
        r##"#["__getMethodNames__,addAll,clear,delete,entries,get,getSize,has,init,keys,set,values","__getMethodNames__,add,addAll,clear,delete,entries,getSize,has,keys,values","__getMethodNames__,addAll,delete,get,has,init,set","__getMethodNames__,add,addAll,delete,has"]"##
    );
    assert_eq!(vat.answer("#[\"hold\",[\"$0.Alleged: x\"]]", &["o-4"]).1, "#[\"x\",true,true,false]");
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls.len(), 2, "nothing of it is left");
}

#[test]
fn k148_many_entries_are_there_after_a_restart_and_not_in_memory() {
    let limits = VatLimits { memory_bytes_max: 4 << 20, crank_deadline_ms: 60_000, ..VatLimits::default() };
    let mut vat = Vat::try_start(start_of(1, SOURCE, limits, vec![])).unwrap();
    assert_eq!(vat.call("#[\"fill\",[10000]]", &[]).outcome, Ok(()));
    let mut again = Vat::try_start(start_of(1, SOURCE, limits, vat.rows())).unwrap();
    assert_eq!(again.answer("#[\"walk\",[9000]]", &[]).1, "#9000");
}
