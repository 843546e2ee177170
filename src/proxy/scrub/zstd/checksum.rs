//! XXH64 with the seed 0, of which zstd writes the low half (RFC 8878, 3.1.1).

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// Bytes that are taken at once.
const STRIPE_BYTES: usize = 32;

/// A checksum of what comes in pieces.
pub(super) struct Checksum {
    lanes: [u64; 4],
    held: [u8; STRIPE_BYTES],
    held_bytes: usize,
    total_bytes: u64,
}

impl Checksum {
    pub(super) fn new() -> Self {
        let lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0_u64.wrapping_sub(PRIME_1)];
        Self { lanes, held: [0; STRIPE_BYTES], held_bytes: 0, total_bytes: 0 }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.total_bytes += bytes.len() as u64;
        if self.held_bytes > 0 {
            let count = (STRIPE_BYTES - self.held_bytes).min(bytes.len());
            self.held[self.held_bytes..][..count].copy_from_slice(&bytes[..count]);
            self.held_bytes += count;
            bytes = &bytes[count..];
            if self.held_bytes < STRIPE_BYTES {
                return;
            }
            let stripe = self.held;
            self.take(&stripe);
        }
        let (stripes, rest) = bytes.as_chunks();
        for stripe in stripes {
            self.take(stripe);
        }
        self.held[..rest.len()].copy_from_slice(rest);
        self.held_bytes = rest.len();
    }

    fn take(&mut self, stripe: &[u8; STRIPE_BYTES]) {
        let (words, _) = stripe.as_chunks();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
        self.held_bytes = 0;
    }

    /// The low half of the sum.
    pub(super) fn finish(&self) -> u32 {
        let mut sum = if self.total_bytes < STRIPE_BYTES as u64 {
            PRIME_5
        } else {
            let [a, b, c, d] = self.lanes;
            let turned = a.rotate_left(1).wrapping_add(b.rotate_left(7));
            let turned = turned.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
            self.lanes
                .iter()
                .fold(turned, |sum, lane| (sum ^ round(0, *lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
        };
        sum = sum.wrapping_add(self.total_bytes);
        let (words, rest) = self.held[..self.held_bytes].as_chunks();
        for word in words {
            sum = (sum ^ round(0, u64::from_le_bytes(*word))).rotate_left(27);
            sum = sum.wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        let (halves, rest) = rest.as_chunks();
        for half in halves {
            sum = (sum ^ u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1)).rotate_left(23);
            sum = sum.wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        }
        for byte in rest {
            sum = (sum ^ u64::from(*byte).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
        }
        sum = (sum ^ (sum >> 33)).wrapping_mul(PRIME_2);
        sum = (sum ^ (sum >> 29)).wrapping_mul(PRIME_3);
        (sum ^ (sum >> 32)) as u32
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementation (the checksums that `zstd` writes).
    #[test]
    fn known_sums_come_out_over_any_pieces() {
        let long = b"The quick brown fox jumps over the lazy dog, and over the lazy dog again.";
        let cases: [(&[u8], u32); 3] = [(b"", 0x51d8_e999), (b"abc", 0xad77_0999), (long, LONG)];
        for (text, expected) in cases {
            for piece in 1..=text.len().max(1) {
                let mut sum = Checksum::new();
                text.chunks(piece).for_each(|chunk| sum.update(chunk));
                assert_eq!(sum.finish(), expected, "{} in pieces of {piece}", text.len());
            }
        }
    }

    const LONG: u32 = 0x603b_3868;
}
