//! Amounts of a node's resources, in the whole numbers that the scheduler counts in.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use super::quantity::{parse_millis, parse_units};

/// Amounts that one pod asks of its node, that several pods ask together, or that a node offers.
///
/// Whole numbers, as the scheduler's: the last pod that fits is never lost to a rounding error.
/// Sums stop at the greatest number, differences at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Ephemeral storage in bytes.
    pub ephemeral_bytes: u64,
    /// Pods.
    pub pods: u64,
    /// Every other resource by name in whole units, such as `nvidia.com/gpu` or `hugepages-2Mi` (in
    /// bytes). Empty for most pods.
    #[serde(skip_serializing_if = "Extended::is_empty")]
    pub extended: Extended,
}

/// Amounts by the name of the resource, in name order. An amount of 0 is not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Arc<str>, u64>", into = "BTreeMap<Arc<str>, u64>")]
pub struct Extended(Vec<(Arc<str>, u64)>);

impl From<BTreeMap<Arc<str>, u64>> for Extended {
    fn from(amounts: BTreeMap<Arc<str>, u64>) -> Self {
        Self(amounts.into_iter().filter(|(_, amount)| *amount > 0).collect())
    }
}

impl From<Extended> for BTreeMap<Arc<str>, u64> {
    fn from(extended: Extended) -> Self {
        extended.0.into_iter().collect()
    }
}

impl Extended {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The amount of one resource; 0 where it is not listed.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.binary_search_by(|(listed, _)| (**listed).cmp(name)).map_or(0, |position| self.0[position].1)
    }

    /// The amounts in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, amount)| (&**name, *amount))
    }

    /// Sets one amount.
    pub fn set(&mut self, name: &str, amount: u64) {
        match (self.0.binary_search_by(|(listed, _)| (**listed).cmp(name)), amount) {
            (Ok(position), 0) => drop(self.0.remove(position)),
            (Ok(position), _) => self.0[position].1 = amount,
            (Err(_), 0) => {}
            (Err(position), _) => self.0.insert(position, (name.into(), amount)),
        }
    }

    /// Each amount of either side by `combine(ours, theirs)`, which is 0 for two zeros.
    fn combine(&mut self, other: &Self, combine: impl Fn(u64, u64) -> u64) {
        if self.is_empty() && other.is_empty() {
            return;
        }
        for (_, amount) in self.0.iter_mut().filter(|(name, _)| other.get(name) == 0) {
            *amount = combine(*amount, 0);
        }
        for (name, theirs) in other.iter() {
            self.set(name, combine(self.get(name), theirs));
        }
        self.0.retain(|(_, amount)| *amount > 0);
    }
}

impl AddAssign<&Self> for Resources {
    fn add_assign(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }
}

impl SubAssign<&Self> for Resources {
    fn sub_assign(&mut self, other: &Self) {
        self.combine(other, u64::saturating_sub);
    }
}

impl Resources {
    /// The amounts of a Kubernetes resource list; what cannot be read counts as not listed.
    #[must_use]
    pub fn read(list: &BTreeMap<String, Quantity>) -> Self {
        let mut read = Self::default();
        for (name, Quantity(text)) in list {
            read.set(name, if name == "cpu" { parse_millis(text) } else { parse_units(text) }.unwrap_or(0));
        }
        read
    }

    /// The amount of one resource by its Kubernetes name, CPU in thousandths.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        match name {
            "cpu" => self.cpu_millis,
            "memory" => self.memory_bytes,
            "ephemeral-storage" => self.ephemeral_bytes,
            "pods" => self.pods,
            _ => self.extended.get(name),
        }
    }

    /// Sets the amount of one resource by its Kubernetes name, CPU in thousandths.
    pub fn set(&mut self, name: &str, amount: u64) {
        match name {
            "cpu" => self.cpu_millis = amount,
            "memory" => self.memory_bytes = amount,
            "ephemeral-storage" => self.ephemeral_bytes = amount,
            "pods" => self.pods = amount,
            _ => self.extended.set(name, amount),
        }
    }

    /// Of every resource the larger amount: what a pod asks at most, by its template and by those
    /// that admission has already changed.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        let mut larger = self.clone();
        larger.combine(other, Ord::max);
        larger
    }

    /// So many times these amounts.
    #[must_use]
    pub fn times(&self, count: u32) -> Self {
        let mut product = self.clone();
        product.combine(&Self::default(), |amount, _| amount.saturating_mul(count.into()));
        product
    }

    /// How many pods that each ask for `each` fit into these amounts beside `taken`: at most 1000,
    /// which is the most that the Seika resource accepts for one node.
    #[must_use]
    pub fn fit(&self, taken: &Self, each: &Self) -> u32 {
        let fits = |offered: u64, taken: u64, each: u64| offered.saturating_sub(taken).checked_div(each).unwrap_or(u64::MAX);
        let mut most = fits(self.cpu_millis, taken.cpu_millis, each.cpu_millis)
            .min(fits(self.memory_bytes, taken.memory_bytes, each.memory_bytes))
            .min(fits(self.ephemeral_bytes, taken.ephemeral_bytes, each.ephemeral_bytes))
            .min(fits(self.pods, taken.pods, each.pods))
            .min(MOST_PER_NODE);
        for (name, each) in each.extended.iter() {
            most = most.min(fits(self.extended.get(name), taken.extended.get(name), each));
        }
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    fn combine(&mut self, other: &Self, combine: impl Fn(u64, u64) -> u64) {
        self.cpu_millis = combine(self.cpu_millis, other.cpu_millis);
        self.memory_bytes = combine(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = combine(self.ephemeral_bytes, other.ephemeral_bytes);
        self.pods = combine(self.pods, other.pods);
        self.extended.combine(&other.extended, combine);
    }
}

/// The most that the Seika resource accepts for one node.
const MOST_PER_NODE: u64 = 1000;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::room) fn resources(amounts: &[(&str, u64)]) -> Resources {
        let mut resources = Resources::default();
        for (name, amount) in amounts {
            resources.set(name, *amount);
        }
        resources
    }

    /// Few names and small amounts, so that sides meet.
    pub(crate) fn any_resources() -> impl Strategy<Value = Resources> {
        let name =
            prop::sample::select(vec!["cpu", "memory", "ephemeral-storage", "pods", "nvidia.com/gpu", "hugepages-2Mi", "a/b"]);
        prop::collection::vec((name, 0..50_u64), 0..8).prop_map(|amounts| resources(&amounts))
    }

    #[test]
    fn the_scarcest_resource_bounds() {
        let offers = resources(&[("cpu", 2000), ("memory", 4 << 30), ("pods", 110)]);
        let each = resources(&[("cpu", 125), ("memory", 128 << 20), ("pods", 1)]);
        assert_eq!(offers.fit(&resources(&[("cpu", 500), ("pods", 10)]), &each), 12);
        assert_eq!(offers.fit(&resources(&[("cpu", 2500)]), &each), 0);
        assert_eq!(offers.fit(&resources(&[("pods", 10)]), &resources(&[("pods", 1)])), 100);
        assert_eq!(Resources::default().fit(&Resources::default(), &each), 0);
        assert_eq!(offers.fit(&Resources::default(), &Resources::default()), 1000);
    }

    #[test]
    fn what_a_node_does_not_offer_fits_nowhere() {
        let offers = resources(&[("cpu", 2000), ("nvidia.com/gpu", 4), ("pods", 110)]);
        let each = |name| resources(&[("pods", 1), (name, 1)]);
        let taken = resources(&[("nvidia.com/gpu", 1)]);
        assert_eq!(offers.fit(&taken, &each("nvidia.com/gpu")), 3);
        assert_eq!(offers.fit(&taken, &each("example.com/fpga")), 0);
        assert_eq!(offers.fit(&taken, &each("ephemeral-storage")), 0);
    }

    #[test]
    fn ten_tenths_fill_a_core() {
        let each = Resources::read(&[("cpu".to_owned(), Quantity("0.1".to_owned()))].into());
        assert_eq!(resources(&[("cpu", 1000)]).fit(&each.times(7), &each), 3);
    }

    #[test]
    fn resources_are_plain_json_and_absent_ones_are_zero() {
        let some = resources(&[("cpu", 5), ("nvidia.com/gpu", 2)]);
        let text = serde_json::to_string(&some).unwrap();
        assert_eq!(text, r#"{"cpu_millis":5,"memory_bytes":0,"ephemeral_bytes":0,"pods":0,"extended":{"nvidia.com/gpu":2}}"#);
        assert_eq!(serde_json::from_str::<Resources>(&text).unwrap(), some);
        assert_eq!(serde_json::from_str::<Resources>(r#"{"extended":{"a/b":0}}"#).unwrap(), Resources::default());
    }

    proptest! {
        #[test]
        fn what_is_added_and_taken_off_leaves_no_trace(one in any_resources(), other in any_resources()) {
            let mut sum = one.clone();
            sum += &other;
            let mut reversed = other.clone();
            reversed += &one;
            prop_assert_eq!(&sum, &reversed);
            sum -= &other;
            prop_assert_eq!(sum, one);
        }

        #[test]
        fn nothing_falls_below_zero_and_the_larger_is_no_less_than_either(one in any_resources(), other in any_resources()) {
            let mut less = one.clone();
            less -= &other;
            let larger = one.max(&other);
            for name in ["cpu", "memory", "ephemeral-storage", "pods", "nvidia.com/gpu", "hugepages-2Mi", "a/b"] {
                prop_assert_eq!(less.get(name), one.get(name).saturating_sub(other.get(name)));
                prop_assert_eq!(larger.get(name), one.get(name).max(other.get(name)));
                prop_assert_eq!(one.times(3).get(name), 3 * one.get(name));
            }
        }

        #[test]
        fn exactly_as_many_fit_as_can_be_added(offers in any_resources(), taken in any_resources(), each in any_resources()) {
            let within = |count: u32| {
                let mut sum = taken.clone();
                sum += &each.times(count);
                let names = ["cpu", "memory", "ephemeral-storage", "pods", "nvidia.com/gpu", "hugepages-2Mi", "a/b"];
                names.iter().all(|name| each.get(name) == 0 || sum.get(name) <= offers.get(name))
            };
            let most = offers.fit(&taken, &each);
            prop_assert!(most == 0 || within(most));
            prop_assert!(most == 1000 || !within(most + 1));
        }
    }
}
