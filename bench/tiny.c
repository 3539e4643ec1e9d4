// SPDX-License-Identifier: MIT
// The smallest program to spawn; linked statically, so that the loader is not measured.
int main(void) {
  return 0;
}
