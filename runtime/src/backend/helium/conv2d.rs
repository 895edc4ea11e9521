//! Convolution: brings each position's inputs of a group side by side for [`Product`].

use core::arch::naked_asm;

use super::dense::dense;
use super::memory;
use super::product::{Product, Room, Width};
use crate::backend::kernels::{Kernels, links};
use crate::backend::spec::helium::{
    BLOCK, Conv, MOST_TAPS, Segments, VECTOR, copied, padded, positions_at_once, sums_bytes,
};
use crate::ops::linear::Integer;
use crate::ops::window::Window;

/// Runs a convolution whose kernel is linked. Slices are bytes of the tensors.
#[inline(never)]
#[expect(clippy::too_many_arguments, reason = "those of the operator, and the plan")]
pub fn conv2d<K: Kernels>(
    conv: Conv,
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    width: Width,
    input: Option<&[u8]>,
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let sums = match conv {
        Conv::Dense { .. } => 0,
        _ => sums_bytes(positions_at_once(window, &conv)),
    };
    let (sums, scratch) = scratch.split_at_mut_checked(sums)?;
    let sums: &mut [i32] = bytemuck::try_cast_slice_mut(sums).ok()?;
    match conv {
        Conv::Dense { inputs } if const { links::<K>("helium dense") } => {
            dense(inputs, linear, width, input?, output, scratch)
        }
        Conv::Pointwise { round } if const { links::<K>("helium pointwise") } => {
            pointwise(round, window, groups, linear, width, input, output, sums, scratch)
        }
        Conv::Rows { row } if const { links::<K>("helium rows") } => {
            rows(row, None, window, groups, linear, width, input, output, sums, scratch)
        }
        Conv::Patches { row, round } if const { links::<K>("helium patches") } => {
            rows(row, Some(round), window, groups, linear, width, input, output, sums, scratch)
        }
        _ => None,
    }
}

#[expect(clippy::too_many_arguments, reason = "those of the operator, and the plan")]
fn pointwise(
    round: usize,
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    width: Width,
    input: Option<&[u8]>,
    output: &mut [u8],
    sums: &mut [i32],
    scratch: &mut [u8],
) -> Option<()> {
    let inputs = window.inputs.checked_div(groups)?;
    let product = Product::new(linear, width, groups, 1, inputs.div_ceil(BLOCK))?;
    let [step_in, step_out] = [inputs.checked_mul(width.input())?, product.output_bytes()];
    let position = window.inputs.checked_mul(width.input())?;
    let outputs = window.outputs.checked_mul(width.output())?;
    let positions = window.batch.checked_mul(window.rows.input)?.checked_mul(window.columns.input)?;
    let mut room = Room { sums, gaps: &mut [] };
    // Positions that are read where they lie.
    let direct = match input {
        Some(input) => {
            let direct = positions.saturating_sub(copied(window, inputs));
            for group in 0..groups {
                let input = input.get(group.wrapping_mul(step_in)..)?;
                let place = output.get_mut(group.wrapping_mul(step_out)..)?;
                product.run(group, input, &[0], position, direct, place, &mut room)?;
            }
            direct
        }
        None => 0,
    };
    let round = match input {
        Some(_) => positions.wrapping_sub(direct),
        None => round,
    };
    let mut done = direct;
    while done < positions {
        let count = round.min(positions.wrapping_sub(done));
        let bytes = count.wrapping_mul(position);
        let first = done.wrapping_mul(position);
        let source = match input {
            Some(input) => input.get(first..)?,
            None => output.get(first..)?,
        };
        memory::copy(scratch.get_mut(..bytes)?, source.get(..bytes)?);
        let place = done.wrapping_mul(outputs);
        for group in 0..groups {
            let source = scratch.get(group.wrapping_mul(step_in)..)?;
            let place = output.get_mut(place.wrapping_add(group.wrapping_mul(step_out))..)?;
            product.run(group, source, &[0], position, count, place, &mut room)?;
        }
        done = done.wrapping_add(count);
    }
    Some(())
}

/// What [`gather`] is told.
#[repr(C)]
struct Gather {
    /// Segments of a position.
    segments: usize,
    /// Vectors of a segment.
    vectors: usize,
    /// From behind a segment's last vector to the next segment in the copy.
    back: isize,
    /// Bytes from a position to the next.
    step: usize,
    /// Positions.
    count: usize,
    /// Bytes of a position's copy.
    pitch: usize,
}

/// Positions from which on a segment of all is copied before the next one.
const MANY: usize = 12;

/// Copies the segments of positions side by side, in whole vectors: what is copied too much is overwritten by the next segment, or lies behind the last one.
/// Segment `s` of the first position is at byte `starts[s]` of `from`. Few positions are copied one after the other.
///
/// # Safety
/// `from` is readable from each `starts[s] + p * step` over the segment's vectors, `to` writable at `pitch * p` over all segments and the last one's
/// vectors, which end before the next position's copy. There is at least one position, segment and vector.
#[unsafe(naked)]
unsafe extern "C" fn gather(to: *mut u8, from: *const u8, starts: *const usize, job: *const Gather) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r11, lr}}",
        "ldm r3, {{r4-r9}}",
        "cmp r8, #{many}",
        "blo 4f",
        // For each segment, for each of its vectors: all positions.
        "1:",
        "ldr r12, [r2], #4",
        "add r12, r1",
        "mov r11, r5",
        "2:",
        "mov r3, r12",
        "mov r10, r0",
        "dls lr, r8",
        "3:",
        "vldrb.u8 q0, [r3]",
        "add r3, r7",
        "vstrb.8 q0, [r10]",
        "add r10, r9",
        "le lr, 3b",
        "add r12, #16",
        "adds r0, #16",
        "subs.w r11, r11, #1",
        "bne 2b",
        "add r0, r6",
        "subs r4, #1",
        "bne 1b",
        "pop {{r4-r11, pc}}",
        // For each position: its segments.
        "4:",
        "mov r10, r0",
        "mov r11, r2",
        "cmp r5, #1",
        "bne 7f",
        "dls lr, r4",
        "5:",
        "ldr r3, [r11], #4",
        "add r3, r1",
        "vldrb.u8 q0, [r3]",
        "vstrb.8 q0, [r10], #16",
        "add r10, r6",
        "le lr, 5b",
        "6:",
        "add r1, r7",
        "add r0, r9",
        "subs.w r8, r8, #1",
        "bne 4b",
        "pop {{r4-r11, pc}}",
        "7:",
        "mov r12, r4",
        "8:",
        "ldr r3, [r11], #4",
        "add r3, r1",
        "dls lr, r5",
        "9:",
        "vldrb.u8 q0, [r3], #16",
        "vstrb.8 q0, [r10], #16",
        "le lr, 9b",
        "add r10, r6",
        "subs.w r12, r12, #1",
        "bne 8b",
        "b 6b",
        ".cpu cortex-m33",
        many = const MANY,
    )
}

/// Convolution over a ring of padded rows; with `patches`, over copies of so many positions.
#[expect(clippy::too_many_arguments, reason = "those of the operator, and the plan")]
fn rows(
    row_bytes: usize,
    patches: Option<usize>,
    window: &Window,
    groups: usize,
    linear: &Integer<'_>,
    width: Width,
    input: Option<&[u8]>,
    output: &mut [u8],
    sums: &mut [i32],
    scratch: &mut [u8],
) -> Option<()> {
    let Window { batch, rows, columns, inputs, outputs } = *window;
    let position = inputs.checked_mul(width.input())?;
    let image = window.image().checked_mul(width.input())?;
    let line = columns.input.checked_mul(position)?;
    let outputs = outputs.checked_mul(width.output())?;
    let segments = Segments::of(window, groups)?;
    let depth = segments.count.checked_mul(segments.elements)?;
    let step = columns.stride.checked_mul(position)?;
    let product = match patches {
        Some(_) => Product::new(linear, width, groups, 1, depth.div_ceil(BLOCK))?,
        None => Product::new(linear, width, groups, segments.count, segments.elements / BLOCK)?,
    };
    let step_in = inputs.checked_div(groups)?.checked_mul(width.input())?;
    let step_out = product.output_bytes();
    let run = segments.elements.checked_mul(width.input())?;
    let pitch = segments.patch_bytes(width.input());
    // Copies of segments read whole vectors, past the ring too.
    let slack = if patches.is_some() { VECTOR } else { 0 };
    let ring_bytes = rows.kernel.checked_mul(row_bytes)?.checked_add(slack)?;
    let (table, scratch) = scratch.split_at_mut_checked(segments.table_bytes())?;
    let (ring, copies) = scratch.split_at_mut_checked(ring_bytes)?;
    // Where the segments of a window start, for each slot that the first row may have: a run of the table.
    let table: &mut [usize] = bytemuck::try_cast_slice_mut(table).ok()?;
    let slots = (0..rows.kernel).chain(0..rows.kernel);
    let mut starts = table.iter_mut();
    for slot in slots {
        for (tap, start) in (0..segments.across).zip(&mut starts) {
            *start = slot.wrapping_mul(row_bytes).wrapping_add(tap.wrapping_mul(position));
        }
    }
    let beside = segments.across.wrapping_sub(1).wrapping_mul(position);
    let far = rows.kernel.wrapping_sub(1).wrapping_mul(row_bytes).wrapping_add(beside);
    let left = columns.pad.checked_mul(position)?;
    let middle = left..left.checked_add(line)?.min(row_bytes).max(left);
    let zero = linear.input_zero as u8;
    // Positions whose copies wait, and the place of their outputs.
    let (mut waiting, mut place) = (0usize, 0usize);
    let mut gaps = [0; MOST_TAPS];
    let mut room = Room { sums, gaps: &mut gaps };
    memory::fill(ring, zero);
    for picture in 0..batch {
        let picture = picture.wrapping_mul(image);
        // The next padded row to be read, and its slot in the ring.
        let (mut next, mut slot) = (0usize, 0usize);
        for row in 0..rows.output {
            let first = row.wrapping_mul(rows.stride);
            next = next.max(first);
            while next < first.wrapping_add(rows.kernel) {
                let target = ring.get_mut(slot.wrapping_mul(row_bytes)..)?.get_mut(..row_bytes)?;
                if let Some(target) = target.get_mut(middle.clone()) {
                    let y = next.wrapping_sub(rows.pad);
                    if y < rows.input {
                        let source = match input {
                            Some(input) => input,
                            None => &*output,
                        };
                        let at = picture.wrapping_add(y.wrapping_mul(line));
                        memory::copy(target, source.get(at..)?.get(..line)?);
                    } else {
                        memory::fill(target, zero);
                    }
                }
                next = next.wrapping_add(1);
                slot = slot.wrapping_add(1);
                if slot == rows.kernel {
                    slot = 0;
                }
            }
            // The slot of the next row is that of the window's first.
            let starts = table.get(slot.wrapping_mul(segments.across)..)?.get(..segments.count)?;
            let Some(round) = patches else {
                for group in 0..groups {
                    let ring = ring.get(group.wrapping_mul(step_in)..)?;
                    let place = output.get_mut(place.wrapping_add(group.wrapping_mul(step_out))..)?;
                    product.run(group, ring, starts, step, columns.output, place, &mut room)?;
                }
                place = place.wrapping_add(columns.output.wrapping_mul(outputs));
                continue;
            };
            let mut column = 0usize;
            while column < columns.output {
                let count = round.wrapping_sub(waiting).min(columns.output.wrapping_sub(column));
                let from = column.wrapping_mul(step);
                let before = waiting.wrapping_mul(pitch);
                waiting = waiting.wrapping_add(count);
                // Of several groups none can wait: they take turns in one place.
                let full = waiting == round || groups > 1;
                for group in 0..groups {
                    copy_patches(
                        ring,
                        from.wrapping_add(group.wrapping_mul(step_in)),
                        starts,
                        [far, run, step, pitch],
                        count,
                        copies.get_mut(before..)?,
                    )?;
                    if full {
                        let place = output.get_mut(place.wrapping_add(group.wrapping_mul(step_out))..)?;
                        product.run(group, copies, &[0], pitch, waiting, place, &mut room)?;
                    }
                }
                column = column.wrapping_add(count);
                if full {
                    place = place.wrapping_add(waiting.wrapping_mul(outputs));
                    waiting = 0;
                }
            }
        }
    }
    if waiting > 0 {
        product.run(0, copies, &[0], pitch, waiting, output.get_mut(place..)?, &mut room)?;
    }
    Some(())
}

/// [`gather`] of `count` positions from byte `from` on, with segments of `run` bytes, the farthest of which starts at `far`.
fn copy_patches(
    ring: &[u8],
    from: usize,
    starts: &[usize],
    [far, run, step, pitch]: [usize; 4],
    count: usize,
    copies: &mut [u8],
) -> Option<()> {
    let vectors = padded(run);
    let reach = count.checked_sub(1)?.checked_mul(step)?.checked_add(from)?.checked_add(vectors)?;
    let filled = starts.len().checked_sub(1)?.checked_mul(run)?.checked_add(vectors)?;
    if run == 0
        || far.checked_add(reach)? > ring.len()
        || filled > pitch
        || count.checked_mul(pitch)? > copies.len()
    {
        return None;
    }
    let job = Gather {
        segments: starts.len(),
        vectors: vectors / VECTOR,
        back: run.wrapping_sub(vectors) as isize,
        step,
        count,
        pitch,
    };
    let source = ring.as_ptr().wrapping_add(from);
    // SAFETY: `rows` makes no start greater than `far`, so the last position's segments end within `ring`; copies of all positions, with the last segment's whole
    // vectors, lie within `copies` and do not overlap, as checked above.
    unsafe { gather(copies.as_mut_ptr(), source, starts.as_ptr(), &job) }
    Some(())
}
