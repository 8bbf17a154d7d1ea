//! Random values, minted outside the core and carried in commands.

/// Draws from a cryptographic source.
pub trait Ids: Send + Sync + 'static {
    /// Fills with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A secret of 32 bytes, as lower-case hex.
    fn secret(&self) -> String {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        crate::manifest::hash::hex(&bytes)
    }

    /// A random (version 4) UUID.
    fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = crate::manifest::hash::hex(&bytes);
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}
