//! Where each part of the view is on the screen.

use ratatui::layout::Rect;

use super::state::Pane;

/// From this height on, listeners are shown below the connections.
const TALL: u16 = 32;

/// Below this height, the lines around the rows are reduced to one above and one below.
const LOW: u16 = 8;

/// Lines of listeners below the connections, with their headings.
const STRIP: u16 = 8;

/// The parts from top to bottom. On a screen that is too small, those below are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Areas {
    /// What there is, and unless the screen is low, what is wrong.
    pub(super) header: Rect,
    /// One line unless the screen is low: the panes, and what is chosen in this one.
    pub(super) tabs: Rect,
    /// The column headings of the pane with its rows.
    pub(super) body: Rect,
    /// The listeners below the connections of a tall screen.
    pub(super) strip: Rect,
    /// One line: the keys, or what is typed.
    pub(super) footer: Rect,
}

impl Areas {
    pub(super) fn of(screen: Rect, pane: Pane, listeners: usize) -> Self {
        let mut rest = screen;
        let is_low = screen.height < LOW;
        let header = take_top(&mut rest, if is_low { 1 } else { 2 });
        let tabs = take_top(&mut rest, u16::from(!is_low));
        let footer = take_bottom(&mut rest, 1);
        let strip = if pane == Pane::Connections && screen.height >= TALL {
            let lines = u16::try_from(listeners).unwrap_or(STRIP).saturating_add(2);
            take_bottom(&mut rest, lines.min(STRIP))
        } else {
            Rect::default()
        };
        Self {
            header,
            tabs,
            body: rest,
            strip,
            footer,
        }
    }

    /// Rows of the pane, below its column headings.
    pub(super) fn rows(&self) -> usize {
        usize::from(self.body.height.saturating_sub(1))
    }
}

/// Cuts up to `lines` off the top.
pub(super) fn take_top(from: &mut Rect, lines: u16) -> Rect {
    let height = lines.min(from.height);
    let top = Rect { height, ..*from };
    from.y += height;
    from.height -= height;
    top
}

fn take_bottom(from: &mut Rect, lines: u16) -> Rect {
    let height = lines.min(from.height);
    from.height -= height;
    Rect {
        y: from.y + from.height,
        height,
        ..*from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heights(height: u16, listeners: usize) -> [u16; 5] {
        let screen = Rect::new(0, 0, 80, height);
        let areas = Areas::of(screen, Pane::Connections, listeners);
        [
            areas.header,
            areas.tabs,
            areas.body,
            areas.strip,
            areas.footer,
        ]
        .map(|area| area.height)
    }

    #[test]
    fn every_line_of_the_screen_is_in_one_part() {
        assert_eq!(heights(5, 3), [1, 0, 3, 0, 1]);
        assert_eq!(heights(24, 3), [2, 1, 20, 0, 1]);
        assert_eq!(heights(40, 3), [2, 1, 31, 5, 1]);
        assert_eq!(heights(40, 300), [2, 1, 28, 8, 1]);
        for height in 0..60 {
            assert_eq!(heights(height, 3).iter().sum::<u16>(), height);
        }
        let alerts = Areas::of(Rect::new(0, 0, 80, 40), Pane::Alerts, 3);
        assert_eq!((alerts.rows(), alerts.strip.height), (35, 0));
    }
}
