/** The newest release of a package that runs on this Node: those under the name `…-node22` need Node 22.18. */
export function newest(name) {
  const [major, minor] = process.versions.node.split(".").map(Number);
  return import(major > 22 || (major === 22 && minor >= 18) ? `${name}-node22` : name);
}
