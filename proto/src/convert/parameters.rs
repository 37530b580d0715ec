//! PostgreSQL's parameters. Names and values are text that only PostgreSQL can judge.

use regent_types::{ParameterFacts, ParametersView};

use super::{ConvertError, Converted};
use crate::v1;

impl From<ParametersView> for v1::ParametersView {
    fn from(view: ParametersView) -> Self {
        Self { version: view.version, values: view.values.into_iter().collect() }
    }
}

impl TryFrom<v1::ParametersView> for ParametersView {
    type Error = ConvertError;
    fn try_from(view: v1::ParametersView) -> Converted<Self> {
        Ok(Self { version: view.version, values: view.values.into_iter().collect() })
    }
}

impl From<ParameterFacts> for v1::ParameterFacts {
    fn from(facts: ParameterFacts) -> Self {
        Self {
            version: facts.version,
            pending_restart: facts.pending_restart,
            raise_first: facts.raise_first,
            refused: facts.refused.into_iter().collect(),
        }
    }
}

impl TryFrom<v1::ParameterFacts> for ParameterFacts {
    type Error = ConvertError;
    fn try_from(facts: v1::ParameterFacts) -> Converted<Self> {
        Ok(Self {
            version: facts.version,
            pending_restart: facts.pending_restart,
            raise_first: facts.raise_first,
            refused: facts.refused.into_iter().collect(),
        })
    }
}
