use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair};

use crate::{LabError, folder::Folder};

/// A certificate for one address that signs itself, with its ECDSA key, in PEM files that last as
/// long as the value.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    chain_and_key: PathBuf,
    _folder: Folder,
}

impl Certificate {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`LabError::Certificate`], or [`LabError::Io`] if the files cannot be written.
    pub fn of(address: IpAddr) -> Result<Self, LabError> {
        let key = KeyPair::generate()?;
        let chain = CertificateParams::new([address.to_string()])?
            .self_signed(&key)?
            .pem();
        let key = key.serialize_pem();
        let folder = Folder::new("certificate")?;
        Ok(Self {
            chain_and_key: folder.write("chain-and-key.pem", &format!("{chain}{key}"))?,
            chain: folder.write("chain.pem", &chain)?,
            key: folder.write("key.pem", &key)?,
            _folder: folder,
        })
    }

    /// The file with the certificate, which clients trust.
    pub fn chain(&self) -> &Path {
        &self.chain
    }

    /// The file with its key.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// A file with both.
    pub fn chain_and_key(&self) -> &Path {
        &self.chain_and_key
    }
}
