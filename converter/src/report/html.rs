//! What a conversion did, as one page that stands alone: no script, no font, no image from elsewhere.
//!
//! Takes a [`Conversion`]; gives HTML that is well-formed XML too. The same conversion gives the same bytes: nothing on the page tells the time or
//! how long it took. Names come from the model and are not to be trusted: the template escapes them, and characters that steer a
//! display instead of standing for themselves are replaced.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot::{self, Over};
use super::table::{change, decimals, human_bytes, human_count, numbered_reasons, ranks, ratio};
use super::{Basis, Conversion, Fidelity, Layer, Peak};

/// Colours and sizes; read into the page.
const STYLE: &str = include_str!("style.css");
/// Layers whose spectrum is drawn at most: those with the most multiply-adds.
const SPECTRA: usize = 48;

/// The page.
pub fn page(conversion: &Conversion) -> String {
    let title = format!("{}: {} for {}", conversion.model, conversion.dtype, conversion.target);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (PreEscaped(r#"<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>"#))
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (conversion.model) }
                    p class="quiet" { (conversion.dtype) " blob for " (conversion.target) ", by tucano " (env!("CARGO_PKG_VERSION")) }
                }
                main {
                    (warnings(conversion))
                    (summary(conversion))
                    (tradeoff(conversion))
                    (layers(conversion))
                    (shares(conversion))
                    (spectra(conversion))
                    (memory(conversion))
                    (command(conversion))
                }
            }
        }
    };
    page.into_string().replace(steers, "\u{fffd}")
}

/// Control characters, those that change the direction of text, and what no XML may hold.
fn steers(c: char) -> bool {
    let direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || direction || matches!(c, '\u{fffe}' | '\u{ffff}')
}

fn table(name: &str, body: Markup) -> Markup {
    html! { div class="scroll" role="region" tabindex="0" aria-label=(name) { table { (body) } } }
}

fn warnings(conversion: &Conversion) -> Markup {
    html! {
        @if !conversion.warnings.is_empty() {
            section class="warnings" aria-label="warnings" {
                ul { @for warning in &conversion.warnings { li { (warning) } } }
            }
        }
    }
}

fn summary(conversion: &Conversion) -> Markup {
    let (before, after) = (&conversion.before, &conversion.after);
    let mut rows = vec![
        (
            "parameters",
            [before.parameters, after.parameters].map(|n| human_count(n as u64)),
            [before.parameters, after.parameters].map(|n| n as f64),
        ),
        (
            "weights",
            [before.weight_bytes, after.weight_bytes].map(human_bytes),
            [before.weight_bytes, after.weight_bytes].map(|n| n as f64),
        ),
        (
            "multiply-adds",
            [before.macs, after.macs].map(human_count),
            [before.macs, after.macs].map(|n| n as f64),
        ),
    ];
    if let (Some(old), Some(new)) = (before.instructions, after.instructions) {
        rows.push(("instructions (modelled)", [old, new].map(human_count), [old, new].map(|n| n as f64)));
    }
    rows.push((
        "arena (RAM)",
        [before.arena_bytes, after.arena_bytes].map(human_bytes),
        [before.arena_bytes, after.arena_bytes].map(|n| n as f64),
    ));
    let samples = &conversion.samples;
    html! {
        section {
            h2 { "Summary" }
            (table("summary", html! {
                thead { tr { th {} th class="n" scope="col" { "model (f32)" } th class="n" scope="col" { "blob (" (conversion.dtype) ")" } th class="n" scope="col" { "ratio" } } }
                tbody {
                    @for (name, texts, values) in rows {
                        tr { th scope="row" { (name) } td class="n" { (texts[0]) } td class="n" { (texts[1]) } td class="n" { (ratio(values[0], values[1])) } }
                    }
                    @if let Some(bytes) = after.blob_bytes {
                        tr { th scope="row" { "file" } td {} td class="n" { (human_bytes(bytes)) } td {} }
                    }
                    @if let Some(accuracy) = &conversion.accuracy {
                        tr {
                            th scope="row" { "accuracy, " (accuracy.samples) " samples" }
                            td class="n" { (percent(accuracy.before)) }
                            td class="n" { (percent(accuracy.after)) }
                            td class="n" { (format!("{:+.2} points", 100.0 * (accuracy.after - accuracy.before))) }
                        }
                    }
                }
            }))
            h3 { "Outputs against the model's, " (samples.count) " " (samples.source) " samples" }
            (table("outputs against the model's", html! {
                thead { tr {
                    th scope="col" { "network" } th class="n" scope="col" { "same decision" } th class="n" scope="col" { "KL divergence (nats)" }
                    th class="n" scope="col" { "relative RMS error" } th class="n" scope="col" { "largest difference" }
                } }
                tbody {
                    @if let Some(float) = &conversion.float { (fidelity("compressed, before rounding to integers", float)) }
                    (fidelity("blob", &conversion.verify))
                }
            }))
            @if !conversion.notes.is_empty() { ul { @for note in &conversion.notes { li { (note) } } } }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn fidelity(name: &str, fidelity: &Fidelity) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            td class="n" { (fidelity.agreement.map_or_else(|| "-".into(), percent)) }
            td class="n" { (fidelity.kl.map_or_else(|| "-".into(), decimals)) }
            td class="n" { (decimals(fidelity.relative_rms)) }
            td class="n" { (decimals(fidelity.max_abs)) " of " (decimals(fidelity.reference_max)) }
        }
    }
}

fn tradeoff(conversion: &Conversion) -> Markup {
    let measure = super::table::measure(conversion);
    let points = &conversion.tradeoff;
    let losses = Over::BOTH.into_iter().filter_map(|over| plot::loss(points, over, measure));
    let accuracies = Over::BOTH.into_iter().filter_map(|over| plot::accuracy(points, over));
    let figures: Vec<Markup> = losses.chain(accuracies).collect();
    html! {
        @if !figures.is_empty() {
            section {
                h2 { "Trade-off" }
                p class="quiet" {
                    "Line: predicted from the sum of what each layer costs alone. Circles: networks that were built and run on samples that no fit has seen; "
                    "square: the uncompressed network, rounded as the blob is. Diamond: the network of the blob."
                }
                div class="figures" { @for figure in figures { figure { (figure) } } }
                details {
                    summary { "The same as a table" }
                    (table("trade-off", html! {
                        thead { tr {
                            th scope="col" { "network" } th class="n" scope="col" { "weights" } th class="n" scope="col" { "multiply-adds" }
                            th class="n" scope="col" { (measure) } th class="n" scope="col" { "relative error" } th class="n" scope="col" { "accuracy" }
                            th scope="col" { "found on" }
                        } }
                        tbody {
                            @for point in points {
                                tr class=[point.chosen.then_some("chosen")] {
                                    th scope="row" { (point.label) }
                                    td class="n" { (human_bytes(point.weight_bytes)) }
                                    td class="n" { (human_count(point.macs)) }
                                    td class="n" { (decimals(point.loss)) }
                                    td class="n" { (point.error.map_or_else(String::new, decimals)) }
                                    td class="n" { (point.accuracy.map_or_else(String::new, percent)) }
                                    td { (match point.basis {
                                        Basis::Predicted => "prediction",
                                        Basis::HeldOut => "held-out samples",
                                        Basis::Calibration => "calibration samples",
                                    }) }
                                }
                            }
                        }
                    }))
                }
            }
        }
    }
}

fn layers(conversion: &Conversion) -> Markup {
    let layers = &conversion.layers;
    let instructions = layers.iter().any(|layer| layer.instructions.is_some());
    let (numbers, reasons) = numbered_reasons(layers);
    html! {
        section {
            h2 { "Layers" }
            (table("layers", html! {
                thead { tr {
                    th scope="col" { "layer" } th scope="col" { "operator" } th scope="col" { "format" } th scope="col" { "ranks" } th class="n" scope="col" { "error" }
                    th class="n" scope="col" { "weights" } th class="n" scope="col" { "multiply-adds" }
                    @if instructions { th class="n" scope="col" { "instructions" } }
                    th scope="col" { "why" }
                } }
                tbody {
                    @for (layer, number) in layers.iter().zip(&numbers) {
                        tr {
                            th scope="row" { span class="name" { (layer.name) } }
                            td { (layer.op) }
                            td { (layer.format) }
                            td { (ranks(layer)) }
                            td class="n" { (layer.error.map_or_else(String::new, |error| format!("{error:.3}"))) }
                            td class="n" { (change(layer.weight_bytes.map(human_bytes))) }
                            td class="n" { (change(layer.macs.map(human_count))) }
                            @if instructions { td class="n" { (layer.instructions.map_or_else(String::new, |both| change(both.map(human_count)))) } }
                            td { "[" (number + 1) "]" }
                        }
                    }
                }
            }))
            @if layers.is_empty() { p { "The model has no layer with weights." } }
            p class="quiet" {
                "Error: relative RMS of the layer's output against the imported network's, on what the compressed layers before it feed it; of the weight, where there is no calibration data."
            }
            h3 { "Why" }
            ol { @for reason in reasons { li { (reason) } } }
        }
    }
}

fn shares(conversion: &Conversion) -> Markup {
    let layers = &conversion.layers;
    let figures = [
        (
            "bytes of weights",
            plot::bars(
                "bytes of weights of each layer",
                layers,
                |layer| Some(layer.weight_bytes.map(|n| n as u64)),
                |n| human_bytes(n as usize),
            ),
        ),
        (
            "multiply-adds",
            plot::bars("multiply-adds of each layer", layers, |layer| Some(layer.macs), human_count),
        ),
        (
            "instructions, modelled",
            plot::bars("instructions of each layer", layers, |layer| layer.instructions, human_count),
        ),
    ];
    html! {
        section {
            h2 { "Where bytes and time go" }
            p class="quiet" {
                span class="key before" {} "before (f32) "
                span class="key after" {} "after (" (conversion.dtype) ")"
            }
            div class="figures" {
                @for (name, figure) in figures {
                    @if let Some(figure) = figure { figure { figcaption { (name) } (figure) } }
                }
            }
        }
    }
}

fn spectra(conversion: &Conversion) -> Markup {
    let mut drawn: Vec<(usize, &Layer)> =
        conversion.layers.iter().enumerate().filter(|(_, layer)| !layer.spectrum.is_empty()).collect();
    let all = drawn.len();
    drawn.sort_by_key(|(index, layer)| (std::cmp::Reverse(layer.macs[0]), *index));
    drawn.truncate(SPECTRA);
    drawn.sort_by_key(|(index, _)| *index);
    let figures: Vec<Markup> = drawn.iter().filter_map(|(_, layer)| plot::spectrum(layer)).collect();
    html! {
        @if !figures.is_empty() {
            section {
                h2 { "Spectra" }
                p class="quiet" {
                    "Share of the energy of each layer's output that the best approximation of that rank leaves out, on undisturbed inputs: no format whose last factor has that rank can "
                    "hold more. Dashed: the rank of the last factor in the blob, where it limits the output; otherwise the ranks are given."
                    @if all > drawn.len() { " Drawn are the " (drawn.len()) " layers with the most multiply-adds of " (all) "." }
                }
                div class="figures small" { @for figure in figures { figure { (figure) } } }
            }
        }
    }
}

fn memory(conversion: &Conversion) -> Markup {
    let arena = [conversion.before.arena_bytes, conversion.after.arena_bytes];
    let peaks = [&conversion.peak_before, &conversion.peak];
    let row = |when: &str, peak: &Peak| {
        html! {
            @for held in &peak.live {
                tr { th scope="row" { span class="name" { (held.name) } } td { (when) } td { span class="name" { (peak.step) } } td class="n" { (human_bytes(held.bytes)) } }
            }
        }
    };
    html! {
        section {
            h2 { "Memory" }
            @if let Some(figure) = plot::memory(peaks, arena) {
                div class="figures one" { figure { (figure) figcaption { "The arena when it is fullest, and what lives in it then." } } }
            }
            (table("what lives in the arena when it is fullest", html! {
                thead { tr { th scope="col" { "value" } th scope="col" { "network" } th scope="col" { "step" } th class="n" scope="col" { "bytes" } } }
                tbody { (row("before", peaks[0])) (row("after", peaks[1])) }
            }))
        }
    }
}

fn command(conversion: &Conversion) -> Markup {
    html! {
        @if let Some(command) = &conversion.command {
            section { h2 { "Reproduce" } pre { code { (command) } } }
        }
    }
}
