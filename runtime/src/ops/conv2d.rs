//! Two-dimensional convolution of images `[n, h, w, c]`: strides, dilation, padding of each side, groups.

/// Parameters of [`crate::ops::OpCode::Conv2dI8`] and its families, and of the depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Rows from one window to the next.
    pub stride_h: u32,
    /// Columns from one window to the next.
    pub stride_w: u32,
    /// Rows of zeros above the image.
    pub pad_top: u32,
    /// Columns of zeros left of the image.
    pub pad_left: u32,
    /// Rows of zeros below the image.
    pub pad_bottom: u32,
    /// Columns of zeros right of the image.
    pub pad_right: u32,
    /// Rows from one kernel row to the next in the image; 1 = dense.
    pub dilation_h: u32,
    /// Columns from one kernel column to the next in the image; 1 = dense.
    pub dilation_w: u32,
    /// Rows of the kernel.
    pub kernel_h: u32,
    /// Columns of the kernel.
    pub kernel_w: u32,
    /// Groups: output channel `o` reads the input channels of group `o / (outputs / groups)`. The number of input channels for a
    /// depthwise convolution.
    pub groups: u32,
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
            dilation_h,
            dilation_w,
            kernel_h,
            kernel_w,
            groups,
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
            dilation_h,
            dilation_w,
            kernel_h,
            kernel_w,
            groups,
            act_min,
            act_max,
        })
    }

    /// The words of a step.
    pub fn emit(&self) -> [u32; 13] {
        [
            self.stride_h,
            self.stride_w,
            self.pad_top,
            self.pad_left,
            self.pad_bottom,
            self.pad_right,
            self.dilation_h,
            self.dilation_w,
            self.kernel_h,
            self.kernel_w,
            self.groups,
            self.act_min,
            self.act_max,
        ]
    }
}
