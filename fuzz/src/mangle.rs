//! Inputs near to good ones, from a seed: what a test can do of a fuzzer's work.

/// Feeds `body` random bytes, the seeds, and `rounds` seeds with a few changes each.
pub(crate) fn mangle(seeds: &[Vec<u8>], rounds: u64, body: impl Fn(&[u8])) {
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| body(seed));
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    for _ in 0..rounds {
        let noise: Vec<u8> = (0..chance.below(64)).map(|_| chance.byte()).collect();
        body(&noise);
        let mut input = seeds[chance.below(seeds.len())].clone();
        for _ in 0..=chance.below(4) {
            chance.change(&mut input, seeds);
        }
        body(&input);
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.below(256).try_into().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        // Bytes that mean something to one of the decoders, more often than others.
        let telling = b"\"{}[]:,#@?+-0129zr\\ \n\x00\x7f\x80\xff";
        let at = self.below(input.len() + 1);
        let end = at + self.below(input.len() - at + 1).min(16);
        match self.below(6) {
            0 => drop(input.drain(at..end)),
            1 => input.insert(at, telling[self.below(telling.len())]),
            2 if at < input.len() => input[at] = self.byte(),
            3 if at < input.len() => input[at] = telling[self.below(telling.len())],
            4 => {
                let copy = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
