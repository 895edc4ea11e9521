//! The recorded instruction counts of known layers on every emulated core, `benches/instructions.json`, and how a measurement compares with them.
//!
//! Counts repeat to the tick of the board's timer. Another compiler moves the Rust code around the kernels a little, so the file names the compiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tucano_converter::boards::Board;
use tucano_converter::boards::differential::Layer;

/// Writes the file anew.
pub const UPDATE: &str = "cargo bench -p tucano-benches --bench kernels -- --update";
/// How much more a layer may take, and how much less is a reason to record it.
const TOLERANCE: f64 = 0.02;
/// The same, with another compiler than the recorded one.
const WIDE_TOLERANCE: f64 = 0.05;
const SCHEMA: &str = "tucano.instructions/1";

/// Executed instructions by board and layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instructions {
    /// The compiler of the firmware, as `rustc --version` names it.
    pub compiler: String,
    /// Layers of each board.
    pub boards: BTreeMap<String, BTreeMap<String, f64>>,
}

/// What a board's measurement says, a line each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Layers that take more than recorded, are not recorded, or were not measured.
    pub errors: Vec<String>,
    /// Layers that take less, and a compiler that differs.
    pub notes: Vec<String>,
}

impl Instructions {
    /// The committed file.
    #[must_use]
    pub fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it anew.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |what: &str| format!("{}: {what}\n  {UPDATE}", Self::path().display());
        let document: Value = serde_json::from_str(text).map_err(|error| refuse(&error.to_string()))?;
        if document["schema"] != SCHEMA {
            return Err(refuse(&format!("`schema` is not {SCHEMA}")));
        }
        let compiler = document["compiler"].as_str().ok_or_else(|| refuse("`compiler` is missing"))?;
        let boards = document["boards"].as_object().ok_or_else(|| refuse("`boards` is missing"))?;
        let layers = |(board, layers): (&String, &Value)| {
            let count = |(name, count): (&String, &Value)| Some((name.clone(), count.as_f64()?));
            let layers = layers.as_object().and_then(|layers| layers.iter().map(count).collect());
            layers
                .map(|layers| (board.clone(), layers))
                .ok_or_else(|| refuse(&format!("`{board}` holds no counts")))
        };
        Ok(Self { compiler: compiler.into(), boards: boards.iter().map(layers).collect::<Result<_, _>>()? })
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let counts = |layers: &BTreeMap<String, f64>| -> Map<String, Value> {
            layers.iter().map(|(name, count)| (name.clone(), json!(count.round() as u64))).collect()
        };
        let boards: Map<String, Value> =
            self.boards.iter().map(|(board, layers)| (board.clone(), counts(layers).into())).collect();
        let document = json!({"schema": SCHEMA, "compiler": self.compiler, "boards": boards});
        format!("{document:#}\n")
    }

    /// Records a board's layers.
    pub fn record(&mut self, board: &Board, layers: &[Layer]) {
        let counts = layers.iter().map(|layer| (layer.name.clone(), layer.instructions)).collect();
        self.boards.insert(board.name.into(), counts);
    }

    /// Compares what was measured on a board, with firmware of that compiler, with what is recorded.
    #[must_use]
    pub fn compare(&self, board: &Board, layers: &[Layer], compiler: &str) -> Verdict {
        let mut verdict = Verdict::default();
        let mut tolerance = TOLERANCE;
        if compiler != self.compiler {
            tolerance = WIDE_TOLERANCE;
            verdict.notes.push(format!(
                "{}: built by {compiler}, recorded with {}: {} % more are allowed",
                board.name,
                self.compiler,
                100.0 * tolerance
            ));
        }
        let none = BTreeMap::new();
        let recorded = self.boards.get(board.name).unwrap_or(&none);
        for layer in layers {
            let Some(before) = recorded.get(&layer.name) else {
                verdict.errors.push(format!("{}, {}: not recorded", board.name, layer.name));
                continue;
            };
            let now = layer.instructions;
            let text = format!("{}, {}: {now:.0} instructions, recorded {before:.0}", board.name, layer.name);
            if now > before * (1.0 + tolerance) + board.instructions_per_tick {
                verdict.errors.push(text);
            } else if now < before * (1.0 - tolerance) - board.instructions_per_tick {
                verdict.notes.push(format!("{text}: better, worth an update"));
            }
        }
        for name in recorded.keys().filter(|name| !layers.iter().any(|layer| layer.name == **name)) {
            verdict.errors.push(format!("{}, {name}: recorded, but not measured", board.name));
        }
        if !verdict.errors.is_empty() {
            verdict.errors.push(format!("if this is meant: {UPDATE}"));
        }
        verdict
    }
}

/// The compiler that builds firmware for a board.
///
/// # Errors
/// There is none.
pub fn compiler(board: &Board) -> Result<String, tucano_converter::boards::Error> {
    Ok(tucano_converter::boards::toolchain::Toolchain::find(board.target)?.description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tucano_converter::boards;

    fn layer(name: &str, instructions: f64) -> Layer {
        Layer { name: name.into(), kernel: "k".into(), scratch_bytes: 0, macs: 1, instructions }
    }

    fn recorded() -> (&'static Board, Instructions) {
        let board = boards::find("qemu-m4").unwrap();
        let mut recorded = Instructions { compiler: "rustc 1".into(), ..Instructions::default() };
        recorded.record(board, &[layer("large", 100_000.0), layer("tiny", 100.0)]);
        (board, recorded)
    }

    #[test]
    fn text_is_read_back() {
        let (_, recorded) = recorded();
        assert_eq!(Instructions::parse(&recorded.text()), Ok(recorded));
        assert!(Instructions::parse("{}").is_err());
    }

    #[test]
    fn more_than_the_tolerance_is_an_error_and_less_a_note() {
        let (board, recorded) = recorded();
        let tick = board.instructions_per_tick;
        let of = |large: f64, tiny: f64, compiler: &str| {
            let found = recorded.compare(board, &[layer("large", large), layer("tiny", tiny)], compiler);
            (found.errors.len(), found.notes.len())
        };
        assert_eq!(of(102_000.0 + tick, 102.0 + tick, "rustc 1"), (0, 0));
        // The last line is the command.
        assert_eq!(of(102_001.0 + tick, 100.0, "rustc 1"), (2, 0));
        assert_eq!(of(100_000.0, 103.0 + tick, "rustc 1"), (2, 0));
        assert_eq!(of(97_999.0 - tick, 100.0, "rustc 1"), (0, 1));
        assert_eq!(of(104_000.0, 100.0, "rustc 2"), (0, 1));
        assert_eq!(of(105_100.0 + tick, 100.0, "rustc 2"), (2, 1));
    }

    #[test]
    fn missing_and_unknown_layers_are_errors() {
        let (board, recorded) = recorded();
        let found = recorded.compare(board, &[layer("large", 1e5), layer("new", 1.0)], "rustc 1");
        assert_eq!(found.errors.len(), 3, "{found:?}");
        assert!(!Instructions::default().compare(board, &[layer("large", 1e5)], "").errors.is_empty());
    }
}
