//! Progress on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::search::Progress;

/// A bar on the standard error stream with the stage, the share that is done and an estimate of the rest.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that is hidden where the standard error stream is no terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(
            "{spinner} {msg:<44!} [{bar:24}] {pos}/{len} {elapsed_precise} (about {eta} left)",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn expect(&self, steps: usize) {
        self.0.inc_length(steps as u64);
    }

    fn step(&self, message: &str) {
        self.0.set_message(message.to_string());
        self.0.inc(1);
    }
}
