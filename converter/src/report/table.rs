//! Tables for the terminal.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets};

use super::{Basis, Conversion, Fidelity, Layer};

/// A table for lists: a rule below a bold header.
pub fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_style(TableComponent::HeaderLines, '─')
        .set_style(TableComponent::MiddleHeaderIntersections, '─')
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    if !table.is_tty() {
        table.set_width(140);
    }
    table
}

fn right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// `1234567` as `1.18 MiB`, small figures as they are.
pub fn human_bytes(bytes: usize) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.2} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// `1234567` as `1.23 M`, small figures as they are.
pub(super) fn human_count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        _ => format!("{:.2} M", count as f64 / 1e6),
    }
}

/// A small number: four decimals where they tell something.
pub(super) fn decimals(value: f64) -> String {
    if value == 0.0 || (1e-3..1e4).contains(&value.abs()) {
        format!("{value:.4}")
    } else {
        format!("{value:.2e}")
    }
}

/// Ranks with commas.
pub(super) fn ranks(layer: &Layer) -> String {
    layer.ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Times smaller.
pub(super) fn ratio(before: f64, after: f64) -> String {
    if after > 0.0 { format!("{:.2}x", before / after) } else { "-".into() }
}

/// `before > after`, or one figure where nothing changed.
pub(super) fn change([before, after]: [String; 2]) -> String {
    if before == after { before } else { format!("{before} > {after}") }
}

/// Each reason once, and for each layer the index of its own.
pub(super) fn numbered_reasons(layers: &[Layer]) -> (Vec<usize>, Vec<&str>) {
    let mut reasons: Vec<&str> = Vec::new();
    let numbers = layers.iter().map(|layer| {
        reasons.iter().position(|reason| *reason == layer.reason).unwrap_or_else(|| {
            reasons.push(&layer.reason);
            reasons.len() - 1
        })
    });
    (numbers.collect(), reasons)
}

/// What losses on the trade-off curve are, in words.
pub(super) fn measure(conversion: &Conversion) -> &'static str {
    match conversion.loss {
        "divergence" => "KL divergence (nats)",
        "weights" => "squared weight errors, summed",
        _ => "squared relative error",
    }
}

/// Predicted points that the table of the curve shows.
const PREDICTED: usize = 6;

/// The trade-off curve: some predictions, the networks that were run, and the chosen one; `None` where nothing was searched.
pub fn tradeoff_table(conversion: &Conversion) -> Option<Table> {
    let points = &conversion.tradeoff;
    let predicted = points.iter().filter(|point| point.basis == Basis::Predicted && !point.chosen).count();
    let every = predicted.div_ceil(PREDICTED).max(1);
    let mut table =
        plain_table(&["", "network", "weights", "MACs", measure(conversion), "relative error", "accuracy"]);
    for (index, point) in points.iter().enumerate() {
        if point.basis == Basis::Predicted && !point.chosen && index % every != 0 {
            continue;
        }
        table.add_row([
            if point.chosen { ">" } else { "" }.to_string(),
            point.label.clone(),
            human_bytes(point.weight_bytes),
            human_count(point.macs),
            decimals(point.loss),
            point.error.map_or_else(String::new, decimals),
            point.accuracy.map_or_else(String::new, |accuracy| format!("{accuracy:.4}")),
        ]);
    }
    right(&mut table, 2..7);
    (!points.is_empty()).then_some(table)
}

/// One line for each linear layer, and the numbered reasons that the last column points to.
pub fn layer_table(layers: &[Layer]) -> (Table, Vec<String>) {
    let mut table = plain_table(&["layer", "operator", "format", "ranks", "error", "weights", "MACs", "why"]);
    let (numbers, reasons) = numbered_reasons(layers);
    for (layer, number) in layers.iter().zip(numbers) {
        table.add_row([
            layer.name.clone(),
            layer.op.clone(),
            layer.format.clone(),
            ranks(layer),
            layer.error.map_or_else(String::new, |error| format!("{error:.3}")),
            change(layer.weight_bytes.map(human_bytes)),
            change(layer.macs.map(human_count)),
            format!("[{}]", number + 1),
        ]);
    }
    right(&mut table, 4..7);
    let numbered = reasons.iter().enumerate();
    (table, numbered.map(|(k, reason)| format!("[{}] {reason}", k + 1)).collect())
}

/// Totals before and after.
pub fn conversion_table(conversion: &Conversion) -> Table {
    let (before, after) = (&conversion.before, &conversion.after);
    let mut table = plain_table(&["", "before (f32)", &format!("after ({})", conversion.dtype), "ratio"]);
    let mut row = |name: &str, a: String, b: String, ratio: String| {
        table.add_row([name.to_string(), a, b, ratio]);
    };
    let share = |a: usize, b: usize| ratio(a as f64, b as f64);
    row(
        "parameters",
        before.parameters.to_string(),
        after.parameters.to_string(),
        share(before.parameters, after.parameters),
    );
    row(
        "weights",
        human_bytes(before.weight_bytes),
        human_bytes(after.weight_bytes),
        share(before.weight_bytes, after.weight_bytes),
    );
    row(
        "MACs",
        human_count(before.macs),
        human_count(after.macs),
        ratio(before.macs as f64, after.macs as f64),
    );
    row(
        "arena",
        human_bytes(before.arena_bytes),
        human_bytes(after.arena_bytes),
        share(before.arena_bytes, after.arena_bytes),
    );
    if let Some(bytes) = after.blob_bytes {
        row("blob", String::new(), human_bytes(bytes), String::new());
    }
    if let Some(accuracy) = &conversion.accuracy {
        row(
            &format!("accuracy ({} samples)", accuracy.samples),
            format!("{:.4}", accuracy.before),
            format!("{:.4}", accuracy.after),
            format!("{:+.2} points", 100.0 * (accuracy.after - accuracy.before)),
        );
    }
    right(&mut table, 1..4);
    table
}

/// Two columns, for everything that is a list of properties.
pub fn key_value_table<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for (key, value) in rows {
        table.add_row([Cell::new(key).add_attribute(Attribute::Bold), Cell::new(value)]);
    }
    table
}

/// How far outputs lie apart.
pub fn fidelity_table(fidelity: &Fidelity, samples: usize) -> Table {
    let mut rows = vec![
        ("samples", samples.to_string()),
        (
            "largest difference",
            format!("{:.3e} (largest output {:.3e})", fidelity.max_abs, fidelity.reference_max),
        ),
        ("relative RMS error", format!("{:.3e}", fidelity.relative_rms)),
    ];
    if let (Some(agreement), Some(kl)) = (fidelity.agreement, fidelity.kl) {
        rows.push(("same decision", format!("{:.2} %", 100.0 * agreement)));
        rows.push(("KL divergence", format!("{kl:.5} nats")));
    }
    key_value_table(rows)
}
