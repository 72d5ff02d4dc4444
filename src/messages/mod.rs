//! Floor 3: what travels, between actors and on the wire. Data, no behaviour.
