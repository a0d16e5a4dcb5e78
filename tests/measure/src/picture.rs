//! Pictures for the documentation: SVG without a background, in colours that are readable on light
//! and dark pages.

use std::fmt::Write;

/// Text and numbers.
pub(crate) const INK: &str = "#7d8590";
/// Behind the data.
pub(crate) const GRID: &str = "#7d859040";
/// wsmon.
pub(crate) const OURS: &str = "#2f81f7";
/// What wsmon is compared with.
pub(crate) const OTHERS: &str = "#d29922";
/// A target value.
pub(crate) const TARGET: &str = "#3fb950";

pub(crate) const LINE_HEIGHT: f64 = 18.0;

/// Anchor of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture under construction, with pixel coordinates from the top left.
#[derive(Debug)]
pub(crate) struct Picture {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Picture {
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        Self {
            width,
            height,
            title: escape(title),
            body: String::new(),
        }
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, text: &str) {
        self.words(x, y, anchor, "", text);
    }

    pub(crate) fn heading(&mut self, x: f64, y: f64, text: &str) {
        self.words(x, y, Anchor::Start, r#" font-weight="bold""#, text);
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.element(&format!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        ));
    }

    pub(crate) fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        self.element(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" fill="{colour}"/>"#
        ));
    }

    pub(crate) fn dot(&mut self, x: f64, y: f64, colour: &str) {
        self.element(&format!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#
        ));
    }

    pub(crate) fn svg(&self) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" role="img" aria-labelledby="title">
<title id="title">{title}</title>
<g font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', 'Liberation Sans', sans-serif" font-size="12" fill="{INK}">
{body}</g>
</svg>
"#
        )
    }

    fn words(&mut self, x: f64, y: f64, anchor: Anchor, style: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.element(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{style}>{text}</text>"#
        ));
    }

    fn element(&mut self, element: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_out_of_its_element() {
        let mut picture = Picture::new(10.0, 10.0, "a & b");
        picture.text(1.0, 2.0, Anchor::End, "<2 %>");
        let svg = picture.svg();
        assert!(svg.contains("<title id=\"title\">a &amp; b</title>"));
        assert!(svg.contains(">&lt;2 %&gt;</text>"), "{svg}");
    }
}
