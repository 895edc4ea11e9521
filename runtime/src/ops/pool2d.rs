//! Maximum and mean over windows of images `[n, h, w, c]`, each channel on its own.

/// Parameters of [`crate::ops::OpCode::MaxPool2dI8`], [`crate::ops::OpCode::AveragePool2dI8`] and their `f32` families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Rows from one window to the next.
    pub stride_h: u32,
    /// Columns from one window to the next.
    pub stride_w: u32,
    /// Rows of padding above the image.
    pub pad_top: u32,
    /// Columns of padding left of the image.
    pub pad_left: u32,
    /// Rows of padding below the image.
    pub pad_bottom: u32,
    /// Columns of padding right of the image.
    pub pad_right: u32,
    /// Rows of a window.
    pub kernel_h: u32,
    /// Columns of a window.
    pub kernel_w: u32,
    /// 1 if a mean counts padding as zeros, 0 if it leaves padding out. A maximum always leaves it out.
    pub count_include_pad: u32,
    /// Least output: an `i32` in stored units, or the bits of an `f32`.
    pub act_min: u32,
    /// Greatest output: an `i32` in stored units, or the bits of an `f32`.
    pub act_max: u32,
}

impl Parameters {
    /// Reads the words of a step; `None` if their number is wrong.
    pub fn parse(words: &[u32]) -> Option<Self> {
        let &[
            stride_h,
            stride_w,
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
            kernel_h,
            kernel_w,
            count_include_pad,
            act_min,
            act_max,
        ] = words
        else {
            return None;
        };
        Some(Self {
            stride_h,
            stride_w,
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
            kernel_h,
            kernel_w,
            count_include_pad,
            act_min,
            act_max,
        })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 11] {
        [
            self.stride_h,
            self.stride_w,
            self.pad_top,
            self.pad_left,
            self.pad_bottom,
            self.pad_right,
            self.kernel_h,
            self.kernel_w,
            self.count_include_pad,
            self.act_min,
            self.act_max,
        ]
    }
}
