//! The numbers of a CSI sequence, as xterm.js reads them: at most 32, and 32 sub-numbers.

const MAX: usize = 32;

/// Numbers and the sub-numbers (`4:3`) that follow each.
#[derive(Clone, Debug)]
pub(super) struct Params {
    numbers: [i32; MAX],
    len: usize,
    subs: [i32; MAX],
    sub_len: usize,
    /// Where the sub-numbers of each number begin and end.
    ranges: [(u8, u8); MAX],
}

impl Default for Params {
    fn default() -> Self {
        Self { numbers: [0; MAX], len: 1, subs: [0; MAX], sub_len: 0, ranges: [(0, 0); MAX] }
    }
}

impl Params {
    /// Reads digits, `;` and `:`. An absent number is 0, an absent sub-number -1.
    pub(super) fn read(&mut self, text: &[u8]) {
        (self.len, self.sub_len) = (1, 0);
        (self.numbers[0], self.ranges[0]) = (0, (0, 0));
        let (mut is_sub, mut is_full, mut is_sub_full) = (false, false, false);
        for byte in text {
            match byte {
                b';' => {
                    is_sub = false;
                    if self.len == MAX {
                        is_full = true;
                        continue;
                    }
                    self.numbers[self.len] = 0;
                    self.ranges[self.len] = (self.sub_len as u8, self.sub_len as u8);
                    self.len += 1;
                }
                b':' => {
                    is_sub = true;
                    if is_full || self.sub_len == MAX {
                        is_sub_full = true;
                        continue;
                    }
                    self.subs[self.sub_len] = -1;
                    self.sub_len += 1;
                    self.ranges[self.len - 1].1 += 1;
                }
                _ => {
                    if is_full || (is_sub && is_sub_full) {
                        continue;
                    }
                    let number = if is_sub {
                        &mut self.subs[self.sub_len - 1]
                    } else {
                        &mut self.numbers[self.len - 1]
                    };
                    *number = (*number).max(0).saturating_mul(10).saturating_add(i32::from(byte & 0x0f));
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number at `index`; 0 if there is none.
    pub(super) fn get(&self, index: usize) -> i32 {
        if index < self.len { self.numbers[index] } else { 0 }
    }

    /// A count: absent and 0 mean 1.
    pub(super) fn count(&self, index: usize) -> usize {
        usize::try_from(self.get(index)).unwrap_or(0).max(1)
    }

    /// The sub-numbers behind the number at `index`.
    pub(super) fn subs(&self, index: usize) -> &[i32] {
        if index >= self.len {
            return &[];
        }
        let (start, end) = self.ranges[index];
        &self.subs[usize::from(start)..usize::from(end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sub_numbers() {
        let mut params = Params::default();
        params.read(b"38:2::1:2;;7");
        assert_eq!((params.len(), params.get(0), params.get(1), params.get(2)), (3, 38, 0, 7));
        assert_eq!(params.subs(0), [2, -1, 1, 2]);
        assert_eq!((params.subs(1), params.count(1)), (&[][..], 1));
        params.read(&b"1;".repeat(40));
        assert_eq!((params.len(), params.get(31), params.get(32)), (32, 1, 0));
        params.read(b"99999999999999");
        assert_eq!(params.get(0), i32::MAX);
        params.read(&b":1".repeat(40));
        assert_eq!(params.subs(0).len(), 32);
    }
}
