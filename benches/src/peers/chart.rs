//! Bars of times as one SVG file, readable on light and dark pages.

use maud::{Markup, html};

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Whose time it is.
    pub label: String,
    /// In microseconds.
    pub value: f64,
    /// Drawn in the colour that stands out.
    pub ours: bool,
}

/// Bars at a scale of their own: one network in one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Above the bars.
    pub title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

const COLUMN: f64 = 400.0;
const GAP: f64 = 28.0;
const LABEL: f64 = 150.0;
const VALUE: f64 = 66.0;
const ROW: f64 = 18.0;
const TITLE: f64 = 26.0;
const HEAD: f64 = 40.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1b1f24}.quiet{fill:#57606a}.title{font-weight:700;font-size:13px}\
    .peer{fill:#8c959f}.ours{fill:#0072b2}\
    @media(prefers-color-scheme:dark){text{fill:#e6e8ea}.quiet{fill:#a3abb4}.peer{fill:#7d8690}.ours{fill:#56b4e9}}";

/// Draws columns of groups; the note stands above them. Bars that are not finite are left out.
#[must_use]
pub fn svg(note: &str, columns: &[Vec<Group>]) -> String {
    let height = |group: &Group| TITLE + ROW * group.bars.len() as f64 + 10.0;
    let tallest = columns.iter().map(|groups| groups.iter().map(height).sum::<f64>()).fold(0.0, f64::max);
    let (wide, high) = ((COLUMN + GAP) * columns.len().max(1) as f64, HEAD + tallest);
    let drawn = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {wide:.0} {high:.0}")) role="img" {
            title { "Time of one inference" }
            style { (STYLE) }
            text class="quiet" x="0" y="16" { (note) }
            @for (column, groups) in columns.iter().enumerate() {
                @let left = (COLUMN + GAP) * column as f64;
                @for (place, group) in groups.iter().enumerate() {
                    @let top = HEAD + groups[..place].iter().map(height).sum::<f64>();
                    (bars(group, left, top))
                }
            }
        }
    };
    drawn.into_string() + "\n"
}

fn bars(group: &Group, left: f64, top: f64) -> Markup {
    let drawn: Vec<&Bar> = group.bars.iter().filter(|bar| bar.value.is_finite()).collect();
    let most = drawn.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let room = COLUMN - LABEL - VALUE;
    html! {
        text class="title" x=(left) y=(format!("{:.1}", top + 14.0)) { (group.title) }
        @for (row, bar) in drawn.iter().enumerate() {
            @let y = top + TITLE + ROW * row as f64;
            @let width = room * bar.value / most;
            text x=(format!("{:.1}", left + LABEL - 6.0)) y=(format!("{:.1}", y + 9.0)) text-anchor="end" { (bar.label) }
            rect class=(if bar.ours { "ours" } else { "peer" }) x=(format!("{:.1}", left + LABEL)) y=(format!("{y:.1}"))
                width=(format!("{:.1}", width.max(1.0))) height="11" {}
            text class="quiet" x=(format!("{:.1}", left + LABEL + width + 5.0)) y=(format!("{:.1}", y + 9.0)) { (time(bar.value)) }
        }
    }
}

/// Microseconds with three digits.
#[must_use]
pub fn time(us: f64) -> String {
    match us {
        0.0..10.0 => format!("{us:.2}"),
        0.0..100.0 => format!("{us:.1}"),
        _ => format!("{us:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_room() {
        let bar = |label: &str, value, ours| Bar { label: label.into(), value, ours };
        let group = Group {
            title: "a < b".into(),
            bars: vec![bar("one", 5.0, true), bar("two", 10.0, false), bar("none", f64::NAN, false)],
        };
        let drawn = svg("us", &[vec![group]]);
        assert!(drawn.contains("a &lt; b") && drawn.contains(r#"class="ours""#), "{drawn}");
        assert!(drawn.contains(&format!("width=\"{:.1}\"", COLUMN - LABEL - VALUE)), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 2);
    }
}
