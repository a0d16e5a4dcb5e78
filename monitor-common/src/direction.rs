//! The two directions of a connection.

#[cfg(feature = "replay")]
use {
    alloc::{borrow::ToOwned, string::String},
    core::{error::Error, fmt, str::FromStr},
};

/// The direction of a packet, seen from this host's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    Rx = 0,
    Tx = 1,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Rx, Self::Tx];

    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Rx => Self::Tx,
            Self::Tx => Self::Rx,
        }
    }

    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }

    /// The side that sends in this direction, as named in metrics and logs.
    pub const fn sender(self) -> &'static str {
        match self {
            Self::Rx => "peer",
            Self::Tx => "local",
        }
    }
}

#[cfg(feature = "replay")]
impl FromStr for Direction {
    type Err = InvalidDirection;

    fn from_str(text: &str) -> Result<Self, InvalidDirection> {
        let mut all = Self::ALL.into_iter();
        all.find(|direction| direction.as_str() == text)
            .ok_or_else(|| InvalidDirection(text.to_owned()))
    }
}

/// Neither `rx` nor `tx`.
#[cfg(feature = "replay")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDirection(String);

#[cfg(feature = "replay")]
impl Error for InvalidDirection {}

#[cfg(feature = "replay")]
impl fmt::Display for InvalidDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid direction {:?}, expected rx or tx, as seen from this host",
            self.0
        )
    }
}
