/// The version of TLS and the kind of cipher that a client offers. It offers nothing else, so it
/// decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsCipher {
    /// TLS 1.3 with a cipher of the server's choice. All of them have the same overhead.
    Tls13,
    Tls12Gcm,
    Tls12ChaCha20,
    Tls12Cbc,
}

impl TlsCipher {
    pub const ALL: [Self; 4] = [
        Self::Tls13,
        Self::Tls12Gcm,
        Self::Tls12ChaCha20,
        Self::Tls12Cbc,
    ];

    /// A word for file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls13 => "tls13",
            Self::Tls12Gcm => "tls12-gcm",
            Self::Tls12ChaCha20 => "tls12-chacha20",
            Self::Tls12Cbc => "tls12-cbc",
        }
    }

    /// node's name of the version.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Tls13 => "TLSv1.3",
            Self::Tls12Gcm | Self::Tls12ChaCha20 | Self::Tls12Cbc => "TLSv1.2",
        }
    }

    /// OpenSSL's names of the ciphers. The certificate's key is an ECDSA key.
    pub(super) fn ciphers(self) -> &'static str {
        match self {
            Self::Tls13 => {
                "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
            }
            Self::Tls12Gcm => "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::Tls12ChaCha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            // Servers differ in which hash they allow with it.
            Self::Tls12Cbc => "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA",
        }
    }
}
