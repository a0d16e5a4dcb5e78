//! Watched ports on which nobody listens.

use std::{path::Path, time::Duration};

use crate::{
    cli::ports::PortSurvey, config::listeners::PortRange, diagnostics::notice_line,
    kernel::host::owner::Owners,
};

/// How long reading the port forwards may take.
const LONGEST_LISTING: Duration = Duration::from_secs(1);

/// Prints a line for each port on which nobody listens, with the nearest port on which a process does.
pub(super) fn report(unserved: &[PortRange], pod_logs: &Path) {
    if unserved.is_empty() {
        return;
    }
    // Without the other ports, the line is still true.
    let survey = PortSurvey::take(LONGEST_LISTING, |root| Owners::new(root, pod_logs)).ok();
    for range in unserved {
        let survey = survey.as_ref();
        let forwarded = survey.and_then(|survey| survey.forwarded(range));
        let nearest = survey.and_then(|survey| survey.nearest(range));
        let instead = match (forwarded, nearest) {
            (Some(forwarded), _) => forwarded.to_string(),
            (None, Some(nearest)) => nearest.to_string(),
            (None, None) => "see wsmon ports".to_owned(),
        };
        notice_line!("  nobody listens on {range}; {instead}");
    }
}
