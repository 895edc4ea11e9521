//! Figures of the report as inline SVG.
//!
//! Each function takes figures of a conversion and gives one drawing that scales to its column; colours are classes of the page's style, so that one
//! drawing serves light, dark and paper, which the plotting crates, with colours fixed in the file and no titles for screen readers, do not offer. Numbers
//! that are not finite are left out. A drawing without any data is `None`.

use maud::{Markup, html};

use super::table::{change, decimals, human_bytes, human_count, ranks};
use super::{Basis, Layer, Peak, Point};

/// Width of a drawing in its own units; text is 13 of them high, which stays readable on a telephone.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Decades below the largest value that a logarithmic axis shows at most.
const DECADES: f64 = 7.0;

/// Places values on an axis.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// From zero, or from just below the smallest value where zero is far away.
    fn linear(values: impl Iterator<Item = f64>, near_zero: bool, from: f64, to: f64) -> Self {
        let (least, most) = extremes(values);
        let low = if near_zero { 0.0 } else { least - 0.1 * (most - least).max(0.01) };
        let high = if most > low { most } else { low + 1.0 };
        Self { low, high: high + 0.03 * (high - low), logarithmic: false, from, to }
    }

    /// Whole decades around all positive values, the smallest ones left at the edge.
    fn logarithmic(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = extremes(values.filter(|value| *value > 0.0));
        let most = if most > 0.0 { most } else { 1.0 };
        let high = most.log10().ceil();
        let low = if least > 0.0 { least.log10().floor() } else { high - 1.0 };
        Self { low: low.max(high - DECADES).min(high - 1.0), high, logarithmic: true, from, to }
    }

    /// The coordinate of a value, at the nearer end for those beyond the axis.
    fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Round numbers: powers of ten, or about five steps of 1, 2 or 5 times a power of ten of `unit`.
    fn ticks(&self, unit: f64) -> Vec<f64> {
        if self.logarithmic {
            let every = ((self.high - self.low) / 5.0).ceil().max(1.0) as usize;
            return (self.low as i32..=self.high as i32).step_by(every).map(|k| 10f64.powi(k)).collect();
        }
        let rough = (self.high - self.low) / 5.0 / unit;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|k| k * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough) * unit;
        let first = (self.low / step).ceil();
        (0..12).map(|k| (first + f64::from(k)) * step).take_while(|tick| *tick <= self.high).collect()
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
}

/// A coordinate.
fn px(x: f64) -> String {
    format!("{x:.1}")
}

fn power(value: f64) -> String {
    if value >= 1e-3 { format!("{value}") } else { format!("{value:.0e}") }
}

/// At most `most` characters.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
        None => text.into(),
    }
}

/// Grid, ticks and names of both axes; `unit` is that of the horizontal one.
fn frame(x: &Axis, y: &Axis, unit: f64, names: [&str; 2], labels: [&dyn Fn(f64) -> String; 2]) -> Markup {
    html! {
        @for tick in y.ticks(1.0) {
            @let at = px(y.at(tick));
            line class="grid" x1=(px(x.from)) x2=(px(x.to)) y1=(at) y2=(at) {}
            text class="tick" x=(px(x.from - 6.0)) y=(px(y.at(tick) + 4.0)) text-anchor="end" { (labels[1](tick)) }
        }
        line class="grid" x1=(px(x.from)) x2=(px(x.to)) y1=(px(y.from)) y2=(px(y.from)) {}
        @for tick in x.ticks(unit) {
            @let at = px(x.at(tick));
            line class="grid" x1=(at) x2=(at) y1=(px(y.from)) y2=(px(y.from + 4.0)) {}
            text class="tick" x=(at) y=(px(y.from + 17.0)) text-anchor="middle" { (labels[0](tick)) }
        }
        text x=(px((x.from + x.to) / 2.0)) y=(px(y.from + 36.0)) text-anchor="middle" { (names[0]) }
        text x=(px(x.from)) y=(px(y.to - 8.0)) { (names[1]) }
    }
}

/// What a trade-off is drawn over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Bytes of constants.
    Bytes,
    /// Multiply-adds.
    Macs,
}

impl Over {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Bytes, Self::Macs];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes of weights",
            Self::Macs => "multiply-adds",
        }
    }

    fn of(self, point: &Point) -> f64 {
        match self {
            Self::Bytes => point.weight_bytes as f64,
            Self::Macs => point.macs as f64,
        }
    }

    /// What round numbers below `most` are multiples of.
    fn unit(self, most: f64) -> f64 {
        match self {
            Self::Bytes if most >= 1_048_576.0 => 1_048_576.0,
            Self::Bytes if most >= 10_240.0 => 1024.0,
            _ => 1.0,
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Bytes => human_bytes(value.round() as usize),
            Self::Macs => human_count(value.round() as u64),
        }
    }
}

/// Loss over size: the predicted curve, the networks that were run, and the chosen one; `measure` names the loss.
pub fn loss(points: &[Point], over: Over, measure: &str) -> Option<Markup> {
    let drawn: Vec<&Point> = points.iter().filter(|point| point.loss.is_finite()).collect();
    let y = Axis::logarithmic(drawn.iter().map(|point| point.loss), HEIGHT - BOTTOM, TOP + 16.0);
    scatter(&drawn, over, |point| point.loss, &y, measure, &power)
}

/// Share of right answers over size, of the networks that were run on labelled samples.
pub fn accuracy(points: &[Point], over: Over) -> Option<Markup> {
    let right = |point: &Point| point.accuracy.filter(|share| (0.0..=1.0).contains(share));
    let drawn: Vec<&Point> = points.iter().filter(|point| right(point).is_some()).collect();
    let of = |point: &Point| right(point).unwrap_or(0.0);
    let y = Axis::linear(drawn.iter().map(|point| of(point)), false, HEIGHT - BOTTOM, TOP + 16.0);
    scatter(&drawn, over, of, &y, "accuracy", &|share| format!("{:.1} %", 100.0 * share))
}

fn scatter(
    points: &[&Point],
    over: Over,
    value: impl Fn(&Point) -> f64,
    y: &Axis,
    measure: &str,
    label: &dyn Fn(f64) -> String,
) -> Option<Markup> {
    if points.len() < 2 {
        return None;
    }
    let x = Axis::linear(points.iter().map(|point| over.of(point)), true, LEFT, WIDTH - RIGHT);
    let at = |point: &Point| (x.at(over.of(point)), y.at(value(point)));
    let curve: Vec<String> = points
        .iter()
        .filter(|point| point.basis == Basis::Predicted && !point.chosen)
        .map(|point| at(point))
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let says = |point: &Point| {
        format!("{}: {}, {measure} {}", point.label, over.text(over.of(point)), decimals(value(point)))
    };
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" {
            title { (measure) " over " (over.name()) }
            (frame(&x, y, over.unit(x.high), [over.name(), measure], [&|value| over.text(value), label]))
            @if curve.len() > 1 {
                polyline class="curve" points=(curve.join(" ")) {}
            }
            @for point in points.iter().filter(|point| point.basis != Basis::Predicted && !point.chosen) {
                @let (x, y) = at(point);
                @if point.label == "dense" {
                    rect class="dense" x=(px(x - 5.0)) y=(px(y - 5.0)) width="10" height="10" { title { (says(point)) } }
                } @else {
                    circle class="trial" cx=(px(x)) cy=(px(y)) r="4.5" { title { (says(point)) } }
                }
            }
            @for point in points.iter().filter(|point| point.chosen) {
                @let (cx, cy) = at(point);
                @let right = cx < (x.from + x.to) / 2.0;
                path class="mark" d=(format!("M{cx:.1} {:.1}l8 8l-8 8l-8 -8z", cy - 8.0)) { title { (says(point)) } }
                text class="chosen" x=(px(if right { cx + 12.0 } else { cx - 12.0 })) y=(px((cy - 8.0).max(TOP + 26.0)))
                    text-anchor=(if right { "start" } else { "end" }) {
                    "chosen: " (over.text(over.of(point)))
                }
            }
        }
    })
}

/// Layers in one drawing of bars; the others are summed up.
const BARS: usize = 24;

/// Pairs of bars, before and after, one for each layer: the largest ones in the order of the network.
pub fn bars(
    title: &str,
    layers: &[Layer],
    of: impl Fn(&Layer) -> Option<[u64; 2]>,
    text: fn(u64) -> String,
) -> Option<Markup> {
    const ROW: f64 = 46.0;
    let mut rows: Vec<(usize, String, [u64; 2])> = (layers.iter().enumerate())
        .filter_map(|(index, layer)| Some((index, layer.name.clone(), of(layer)?)))
        .collect();
    rows.sort_by_key(|(index, _, sizes)| (std::cmp::Reverse(sizes[0].max(sizes[1])), *index));
    let rest = rows.split_off(rows.len().min(BARS));
    rows.sort_by_key(|(index, ..)| *index);
    if !rest.is_empty() {
        let sum = |k: usize| rest.iter().map(|(_, _, sizes)| sizes[k]).fold(0, u64::saturating_add);
        rows.push((layers.len(), format!("{} smaller layers", rest.len()), [sum(0), sum(1)]));
    }
    let most = rows.iter().map(|(_, _, sizes)| sizes[0].max(sizes[1])).max().filter(|most| *most > 0)?;
    // What is there is seen.
    let least = |value: u64| if value > 0 { 1.0 } else { 0.0 };
    let length = |value: u64| px((WIDTH * (value as f64 / most as f64)).max(least(value)));
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", ROW * rows.len() as f64)) role="img" {
            title { (title) }
            @for (row, (_, name, [before, after])) in rows.iter().enumerate() {
                @let top = ROW * row as f64;
                g {
                    title { (name) ": " (text(*before)) " before, " (text(*after)) " after" }
                    text x="0" y=(px(top + 14.0)) { (shortened(name, 30)) }
                    text class="tick" x=(px(WIDTH)) y=(px(top + 14.0)) text-anchor="end" { (change([*before, *after].map(text))) }
                    rect class="before" x="0" y=(px(top + 19.0)) width=(length(*before)) height="8" {}
                    rect class="after" x="0" y=(px(top + 28.0)) width=(length(*after)) height="8" {}
                }
            }
        }
    })
}

/// How the energy of a layer's output spreads over ranks: the share that is left after each; the chosen rank of the output is marked.
pub fn spectrum(layer: &Layer) -> Option<Markup> {
    const WIDE: f64 = 190.0;
    const HIGH: f64 = 180.0;
    let drawn: Vec<(f64, f64)> = (layer.spectrum.iter())
        .filter(|(_, left)| left.is_finite())
        .map(|(rank, left)| (*rank as f64, *left))
        .collect();
    if drawn.len() < 2 {
        return None;
    }
    let shown = drawn.iter().map(|point| point.1).filter(|left| *left > 1e-7);
    let y = Axis::logarithmic(shown, HIGH - 42.0, 40.0);
    let end = drawn.iter().position(|point| point.1 < 10f64.powf(y.low)).unwrap_or(drawn.len());
    let x = Axis::linear(drawn.iter().take(end + 1).map(|point| point.0), true, 48.0, WIDE - 4.0);
    let line: Vec<String> = (drawn.iter().take(end + 1))
        .map(|(rank, left)| format!("{:.1},{:.1}", x.at(*rank), y.at(*left)))
        .collect();
    let chosen = layer.output_rank.map(|rank| rank as f64).filter(|rank| *rank <= x.high);
    let title = format!("{}: energy left after each rank", layer.name);
    Some(html! {
        svg viewBox=(format!("0 0 {WIDE} {HIGH}")) role="img" {
            title { (title) }
            text x="0" y="14" { (shortened(&layer.name, 26)) }
            (frame(&x, &y, 1.0, ["rank", "energy left out"], [&|rank| format!("{rank}"), &power]))
            polyline class="curve" points=(line.join(" ")) {}
            @if chosen.is_none() && !layer.ranks.is_empty() {
                text class="chosen" x=(px(x.to)) y=(px(y.to + 12.0)) text-anchor="end" { "ranks " (ranks(layer)) }
            }
            @if let Some(rank) = chosen {
                @let at = x.at(rank);
                line class="rule" x1=(px(at)) x2=(px(at)) y1=(px(y.from)) y2=(px(y.to)) { title { "rank " (rank) } }
                text class="chosen" x=(px(if at > 130.0 { at - 4.0 } else { at + 4.0 })) y=(px(y.to + 10.0))
                    text-anchor=(if at > 130.0 { "end" } else { "start" }) { (rank) }
            }
        }
    })
}

/// Who holds the arena when it is fullest, before and after, at one scale.
pub fn memory(peaks: [&Peak; 2], arena: [usize; 2]) -> Option<Markup> {
    const ROW: f64 = 62.0;
    let most = arena.into_iter().max().filter(|most| *most > 0)? as f64;
    let rows = ["before", "after"].into_iter().zip(peaks).zip(arena);
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", 2.0 * ROW)) role="img" {
            title { "arena before and after" }
            @for (row, ((when, peak), bytes)) in rows.enumerate() {
                @let top = ROW * row as f64;
                text x="0" y=(px(top + 16.0)) { (when) ": " (human_bytes(bytes)) ", fullest in " (shortened(&peak.step, 28)) }
                rect x="0" y=(px(top + 23.0)) width=(px(WIDTH * bytes as f64 / most)) height="26" fill="none" class="grid" {
                    title { "arena " (human_bytes(bytes)) }
                }
                @for (start, held) in starts(peak) {
                    @let width = WIDTH * held.bytes as f64 / most;
                    g {
                        title { (held.name) ": " (human_bytes(held.bytes)) }
                        rect class=(format!("part {when}")) x=(px(WIDTH * start as f64 / most)) y=(px(top + 23.0)) width=(px(width)) height="26" {}
                    }
                }
            }
        }
    })
}

fn starts(peak: &Peak) -> impl Iterator<Item = (usize, &super::Holder)> {
    peak.live.iter().scan(0usize, |sum, held| {
        let start = *sum;
        *sum = sum.saturating_add(held.bytes);
        Some((start, held))
    })
}
