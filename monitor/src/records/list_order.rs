//! The orders of the list of connections.

use clap::ValueEnum;
use serde::Deserialize;
use strum::IntoStaticStr;

use super::{connections::ConnectionRecord, rates::DirectionRates};

/// The order of the list of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoStaticStr, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ListOrder {
    /// Oldest first
    #[default]
    Age,
    /// Confirmed zombies first, then suspected ones, warnings, and the oldest
    Urgency,
    /// Longest silence first
    Idle,
    /// Most retransmissions without progress first, then most in all
    Retransmits,
    /// Most bytes in the send queue first
    Queue,
    /// Most frames first, both directions together
    Frames,
    /// Most payload of frames first, both directions together
    Bytes,
    /// Most payload received per second first
    RxRate,
    /// Most payload sent per second first
    TxRate,
}

impl ListOrder {
    /// The name in queries.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it compares rates, for which each connection is read twice.
    pub fn needs_rates(self) -> bool {
        matches!(self, Self::RxRate | Self::TxRate)
    }

    /// The figures of a record that decide, the highest first; `None` if the order needs no records.
    pub fn figures(self) -> Option<fn(&ConnectionRecord) -> Figures> {
        match self {
            Self::Age | Self::Urgency => None,
            Self::Idle => Some(|record| {
                let milliseconds = record.idle_seconds.unwrap_or_default() * 1000.0;
                [milliseconds as u64, 0]
            }),
            Self::Retransmits => {
                Some(|record| [record.tcp.retransmits, record.tcp.retransmits_total].map(u64::from))
            }
            Self::Queue => Some(|record| {
                let bytes = record.tcp.send_queue_bytes.unwrap_or_default();
                [bytes.into(), 0]
            }),
            Self::Frames => {
                Some(|record| [u64::from(record.rx.frames) + u64::from(record.tx.frames), 0])
            }
            Self::Bytes => Some(|record| {
                [
                    record
                        .rx
                        .payload_bytes
                        .saturating_add(record.tx.payload_bytes),
                    0,
                ]
            }),
            Self::RxRate => Some(|record| rate_figures(record.rates.unwrap_or_default().rx)),
            Self::TxRate => Some(|record| rate_figures(record.rates.unwrap_or_default().tx)),
        }
    }
}

/// In thousandths.
fn rate_figures(rates: DirectionRates) -> Figures {
    let figures = [rates.payload_bytes_per_second, rates.frames_per_second];
    figures.map(|figure| (figure * 1000.0) as u64)
}

/// What decides, and what decides if that is equal.
pub type Figures = [u64; 2];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{
        connections::tests::{detail, record},
        rates::TrafficRates,
    };

    #[test]
    fn each_order_compares_its_own_figures() {
        let mut record = record(&detail(1), None);
        record.idle_seconds = Some(5.25);
        record.tcp.retransmits = 2;
        record.tcp.retransmits_total = 9;
        record.tcp.send_queue_bytes = Some(5);
        (record.rx.frames, record.tx.frames) = (u32::MAX, 1);
        (record.rx.payload_bytes, record.tx.payload_bytes) = (70, 7);
        let figures = |order: ListOrder| order.figures().map(|figures| figures(&record));
        assert_eq!(figures(ListOrder::Age), None);
        assert_eq!(figures(ListOrder::Urgency), None);
        assert_eq!(figures(ListOrder::Idle), Some([5250, 0]));
        assert_eq!(figures(ListOrder::Retransmits), Some([2, 9]));
        assert_eq!(figures(ListOrder::Queue), Some([5, 0]));
        assert_eq!(figures(ListOrder::Frames), Some([1 << 32, 0]));
        assert_eq!(figures(ListOrder::Bytes), Some([77, 0]));
        assert_eq!(figures(ListOrder::RxRate), Some([0, 0]), "not read twice");
        let rates = |frames_per_second, payload_bytes_per_second| DirectionRates {
            frames_per_second,
            payload_bytes_per_second,
        };
        record.rates = Some(TrafficRates {
            rx: rates(0.5, 70.25),
            tx: rates(2.0, 0.0),
        });
        let figures = |order: ListOrder| order.figures().map(|figures| figures(&record));
        assert_eq!(figures(ListOrder::RxRate), Some([70_250, 500]));
        assert_eq!(figures(ListOrder::TxRate), Some([0, 2_000]));
    }

    #[test]
    fn an_order_has_one_name_in_flags_and_queries() {
        for order in ListOrder::value_variants() {
            let flag = order.to_possible_value().expect("not hidden");
            assert_eq!(flag.get_name(), order.as_str());
            let text = format!("{:?}", order.as_str());
            assert_eq!(
                serde_json::from_str::<ListOrder>(&text).expect("an order"),
                *order
            );
        }
    }
}
