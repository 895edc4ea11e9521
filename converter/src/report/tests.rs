//! The page, read back by an XML parser.

use roxmltree::{Document, Node, ParsingOptions};

use super::*;

/// A conversion of two layers with all that a report can hold; names are hostile.
pub(super) fn conversion() -> Conversion {
    let size = |scale: usize| Size {
        parameters: 1000 * scale,
        weight_bytes: 4000 * scale,
        macs: 100_000 * scale as u64,
        arena_bytes: 2048 * scale,
        blob_bytes: None,
        instructions: Some(300_000 * scale as u64),
    };
    let fidelity = Fidelity {
        max_abs: 0.1,
        relative_rms: 0.02,
        reference_max: 7.0,
        agreement: Some(0.99),
        kl: Some(0.004),
    };
    let layer = |name: &str, ranks: &[usize]| Layer {
        name: name.into(),
        op: "conv2d".into(),
        format: if ranks.is_empty() { "dense" } else { "tucker" }.into(),
        ranks: ranks.to_vec(),
        error: Some(0.05),
        weight_bytes: [4000, 900],
        macs: [90_000, 30_000],
        instructions: Some([300_000, 120_000]),
        reason: format!("because of {name}"),
        output_rank: ranks.last().copied(),
        spectrum: (0..=16).map(|rank| (rank, 10f64.powf(-(rank as f64) / 4.0))).collect(),
    };
    let point = |label: &str, weight_bytes, loss, basis, chosen| Point {
        label: label.into(),
        weight_bytes,
        macs: 20 * weight_bytes as u64,
        loss,
        basis,
        error: Some(0.1),
        accuracy: Some(0.8),
        chosen,
    };
    let held = |name: &str, bytes| Holder { name: name.into(), bytes };
    let peak = |step: &str| Peak { step: step.into(), live: vec![held("a\u{0}&\"b", 1024), held("c", 512)] };
    Conversion {
        schema: "tucano.convert/1",
        model: "net </title> <script>alert(1)</script>".into(),
        target: "cortex-m4".into(),
        dtype: "int8",
        before: size(4),
        after: Size { blob_bytes: Some(4500), ..size(1) },
        accuracy: Some(Accuracy { before: 0.81, after: 0.8, samples: 250 }),
        verify: fidelity,
        emitted: fidelity,
        samples: Samples { count: 250, source: "calibration" },
        seconds: 1.0,
        layers: vec![layer("<script>", &[3, 5]), layer("\u{202e}/c1/Conv' onload='x", &[])],
        peak: peak("step <b>"),
        peak_before: peak("</svg>"),
        notes: vec!["a note & more".into()],
        warnings: vec!["a <warning>".into()],
        loss: "divergence",
        tradeoff: vec![
            point("predicted", 16_000, 0.0, Basis::Predicted, false),
            point("predicted", 9000, 0.01, Basis::Predicted, false),
            point("trial 1", 5000, 0.02, Basis::HeldOut, false),
            point("chosen", 4000, 0.03, Basis::HeldOut, true),
        ],
        float: Some(fidelity),
        command: Some("convert 'a <b>.onnx' --auto".into()),
    }
}

/// Every text of the document.
fn parsed<T>(page: &str, read: impl FnOnce(&Document<'_>) -> T) -> T {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    read(&Document::parse_with_options(page, options).unwrap())
}

fn has_class(node: &Node<'_, '_>, class: &str) -> bool {
    node.attribute("class").is_some_and(|all| all.split(' ').any(|one| one == class))
}

#[test]
fn the_page_is_well_formed_complete_and_stands_alone() {
    let conversion = conversion();
    let page = page(&conversion);
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert_eq!(page, super::page(&conversion));
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    parsed(&page, |document| {
        let all = || document.descendants();
        let texts = |tag: &str| -> Vec<String> {
            let named = all().filter(|node| node.has_tag_name(tag));
            named
                .map(|node| {
                    node.descendants()
                        .filter_map(|part| part.is_text().then(|| part.text()).flatten())
                        .collect()
                })
                .collect()
        };
        // Every layer, by what a reader sees, in the table and in the figures.
        let headers = texts("th");
        assert!(headers.contains(&"<script>".to_string()));
        assert!(headers.contains(&"\u{fffd}/c1/Conv' onload='x".to_string()));
        for layer in &conversion.layers {
            assert!(texts("li").contains(&layer.reason.replace('\u{202e}', "\u{fffd}")));
        }
        assert!(texts("pre")[0].contains("'a <b>.onnx'"));
        assert!(texts("h1")[0].contains("<script>alert(1)</script>"));
        assert!(all().all(|node| !node.has_tag_name("script") && !node.has_tag_name("b")));
        assert!(
            all().flat_map(|node| node.attributes()).all(|attribute| !attribute.name().starts_with("on"))
        );
        // Curves over bytes and over MACs, each with the chosen point and its label; bars; spectra; memory.
        let drawings: Vec<Node<'_, '_>> = all().filter(|node| node.has_tag_name("svg")).collect();
        assert_eq!(drawings.len(), 2 + 2 + 3 + 2 + 1);
        for drawing in &drawings {
            assert!(drawing.first_element_child().unwrap().has_tag_name("title"));
            assert_eq!(drawing.attribute("role"), Some("img"));
        }
        for curve in &drawings[..4] {
            assert_eq!(curve.descendants().filter(|node| has_class(node, "mark")).count(), 1);
            assert!(
                curve.descendants().any(|node| node.text().is_some_and(|text| text.starts_with("chosen: ")))
            );
        }
        assert_eq!(all().filter(|node| has_class(node, "rule")).count(), 1);
        assert_eq!(all().filter(|node| node.has_tag_name("tr") && has_class(node, "chosen")).count(), 1);
        // Headers say what they head.
        assert!(
            all()
                .filter(|node| node.has_tag_name("th"))
                .all(|node| node.attribute("scope").is_some() || node.text().is_none())
        );
    });
}

#[test]
fn what_is_missing_or_not_finite_leaves_a_page() {
    let whole = conversion();
    let bare = Conversion {
        layers: Vec::new(),
        tradeoff: Vec::new(),
        accuracy: None,
        float: None,
        command: None,
        notes: Vec::new(),
        warnings: Vec::new(),
        peak: Peak { step: String::new(), live: Vec::new() },
        before: Size { parameters: 0, weight_bytes: 0, macs: 0, arena_bytes: 0, ..whole.before },
        after: Size { parameters: 0, weight_bytes: 0, macs: 0, arena_bytes: 0, ..whole.after },
        ..conversion()
    };
    parsed(&page(&bare), |document| {
        assert!(document.descendants().all(|node| !node.has_tag_name("svg")));
    });
    assert!(tradeoff_table(&bare).is_none());
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, f64::MAX, f64::MIN_POSITIVE] {
        let mut odd = conversion();
        odd.verify.kl = Some(bad);
        odd.verify.relative_rms = bad;
        for layer in &mut odd.layers {
            layer.error = Some(bad);
            layer.spectrum = vec![(0, bad), (1, 0.5), (2, bad), (3, 1e-300)];
        }
        for point in &mut odd.tradeoff[1..] {
            point.loss = bad;
            point.error = Some(bad);
            point.accuracy = Some(bad);
        }
        let page = page(&odd);
        parsed(&page, |document| {
            let places = ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "points", "d"];
            for node in document.descendants() {
                for attribute in node.attributes().filter(|attribute| places.contains(&attribute.name())) {
                    assert!(
                        !attribute.value().contains("NaN") && !attribute.value().contains("inf"),
                        "{bad}"
                    );
                }
            }
        });
        assert!(tradeoff_table(&odd).is_some());
    }
}

#[test]
fn hundreds_of_layers_are_summed_up_in_figures_and_listed_in_the_table() {
    let mut large = conversion();
    let layer = large.layers[0].clone();
    large.layers = (0..300u64)
        .map(|k| Layer { name: format!("layer {k}"), macs: [u64::MAX - k, k], ..layer.clone() })
        .collect();
    let page = page(&large);
    parsed(&page, |document| {
        let seen = |text: &str| {
            document.descendants().any(|node| node.text().is_some_and(|found| found.contains(text)))
        };
        assert!((0..300).all(|k| seen(&format!("layer {k}"))));
        assert!(seen("276 smaller layers") && seen("48 layers with the most multiply-adds of 300"));
    });
}

#[test]
fn the_chosen_row_of_the_terminal_is_marked_and_predictions_are_few() {
    let mut long = conversion();
    let first = long.tradeoff[0].clone();
    long.tradeoff.splice(0..0, vec![first; 40]);
    let table = tradeoff_table(&long).unwrap();
    let lines: Vec<String> = table.lines().collect();
    assert!(lines.len() < 14, "{table}");
    let marked: Vec<&String> = lines.iter().filter(|line| line.trim_start().starts_with('>')).collect();
    assert!(marked.len() == 1 && marked[0].contains("chosen"), "{table}");
}

#[test]
fn doubts_are_told() {
    let sure = conversion();
    assert_eq!(warnings(&sure), Vec::<String>::new());
    let told = |change: fn(&mut Conversion), words: &str| {
        let mut doubtful = conversion();
        change(&mut doubtful);
        let found = warnings(&doubtful);
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    };
    told(|c| c.samples = Samples { count: 8, source: "synthetic" }, "unverified");
    told(|c| c.samples.count = 32, "only 32");
    told(|c| c.verify.kl = Some(0.02), "--rank-bits auto");
    told(|c| c.verify.agreement = Some(0.9), "10.0 %");
    told(|c| c.after.arena_bytes = 1 << 20, "arena grew");
}
