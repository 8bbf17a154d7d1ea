//! Sealing of records at rest with AES-256-GCM (spec 10, State at rest).
//!
//! Each record has a data key of its own, wrapped by the state key; both layers are bound to
//! the record's name. Layout: nonce (12), wrapped data key (32 + 16), nonce (12), ciphertext.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use jaco_core::ports::{SealError, Sealer};
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;

/// Seals with a state key held in memory.
pub struct AesSealer {
    state_key: LessSafeKey,
}

impl AesSealer {
    /// A sealer for this state key.
    pub fn new(state_key: &[u8; KEY_LEN]) -> Self {
        Self {
            state_key: key(state_key),
        }
    }
}

impl Sealer for AesSealer {
    fn seal(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        let mut data_key = Zeroizing::new([0; KEY_LEN]);
        rand::fill(&mut *data_key).expect("the operating system gives random bytes");
        let mut sealed = encrypt(&self.state_key, name, &*data_key);
        sealed.extend(encrypt(&key(&data_key), name, plain));
        sealed
    }

    fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let refused = || SealError {
            name: name.to_owned(),
        };
        let (wrapped, body) = sealed.split_at_checked(WRAPPED_LEN).ok_or_else(refused)?;
        let data_key = Zeroizing::new(decrypt(&self.state_key, name, wrapped).ok_or_else(refused)?);
        let data_key: &[u8; KEY_LEN] = data_key.as_slice().try_into().map_err(|_| refused())?;
        decrypt(&key(data_key), name, body).ok_or_else(refused)
    }
}

fn key(bytes: &[u8; KEY_LEN]) -> LessSafeKey {
    let unbound = UnboundKey::new(&AES_256_GCM, bytes).expect("a key of 32 bytes fits AES-256");
    LessSafeKey::new(unbound)
}

fn encrypt(key: &LessSafeKey, name: &str, plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).expect("the operating system gives random bytes");
    let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + TAG_LEN);
    out.extend_from_slice(&nonce);
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(name.as_bytes()),
        &mut body,
    )
    .expect("a record is shorter than 64 GiB");
    out.append(&mut body);
    out
}

fn decrypt(key: &LessSafeKey, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let plain = key
        .open_in_place(nonce, Aad::from(name.as_bytes()), &mut body)
        .ok()?
        .len();
    body.truncate(plain);
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_only_whole_under_its_name_and_key() {
        let sealer = AesSealer::new(&[7; KEY_LEN]);
        let sealed = sealer.seal("log/1", b"secret");
        assert_ne!(sealed, sealer.seal("log/1", b"secret"));
        assert_eq!(sealer.open("log/1", &sealed).unwrap(), b"secret");
        assert!(sealer.open("log/2", &sealed).is_err());
        assert!(
            AesSealer::new(&[8; KEY_LEN])
                .open("log/1", &sealed)
                .is_err()
        );
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert!(sealer.open("log/1", &changed).is_err(), "byte {i}");
            assert!(sealer.open("log/1", &sealed[..i]).is_err(), "cut at {i}");
        }
    }
}
