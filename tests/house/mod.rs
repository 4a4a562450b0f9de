mod documents;
mod edges;
