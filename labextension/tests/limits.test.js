/** What a site allows: the same words and the same judgement as hpcnb.units and hpcnb.site.slurm_partitions. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { allows, complaint, duration, seconds, target, walltimes } from '../lib/limits.js';

const limits = {
  partitions: [
    { name: 'debug', default: true, up: true, walltime: 3600, nodes: 2, cores: 4 },
    { name: 'long', default: false, up: false, walltime: null, nodes: 1, cores: null }
  ],
  accounts: ['m1'],
  defaults: { nodes: 1, walltime: 1800, partition: '', account: '', qos: '' }
};

test('durations are read and written as in Python', () => {
  const read = { '1h30m': 5400, '2-00:00:00': 172800, 90: 90, '1.5h': 5400, '10:30': 630, '1:00:00': 3600, '2d 3h': 183600, ' 15M ': 900, '1-02': 93600 };
  for (const [text, expected] of Object.entries(read)) {
    assert.equal(seconds(text), expected, text);
  }
  for (const text of ['', 'soon', '30 parsecs', '-5', '1h 30', '1:2:3:4']) {
    assert.ok(Number.isNaN(seconds(text)), text);
  }
  assert.deepEqual([duration(5400), duration(172800), duration(0)], ['1h30m', '2d', '0s']);
});

test('what is above the limits is said before anything is submitted', () => {
  assert.equal(complaint(limits, {}), '');
  assert.equal(complaint(limits, { nodes: '3' }), 'Partition debug gives one job 2 nodes at most.');
  assert.equal(complaint(limits, { walltime: '61m' }), 'Partition debug allows 1h at most.');
  assert.equal(complaint(limits, { workers_per_node: '5' }), 'The nodes of partition debug have 4 cores.');
  assert.equal(complaint(limits, { nodes: '1.5' }), 'Nodes: a whole number from 1 on.');
  assert.equal(complaint(limits, { partition: 'long', walltime: '30d', workers_per_node: '99' }), '');
});

test('what is not known here is left to the site', () => {
  assert.equal(complaint(limits, { walltime: 'soon' }), '');
  assert.equal(complaint({ ...limits, partitions: [] }, { nodes: '300' }), '');
  assert.equal(complaint({ ...limits, defaults: { ...limits.defaults, qos: 'premium' } }, { walltime: '2d' }), '');
  assert.equal(target({ ...limits, defaults: { ...limits.defaults, partition: 'long' } }, '').name, 'long');
});

test('choices', () => {
  assert.equal(allows(limits.partitions[0]), '2 nodes of 4 cores, up to 1h');
  assert.equal(allows(limits.partitions[1]), '1 node, down');
  assert.deepEqual(walltimes(3600), ['15m', '30m', '1h']);
  assert.equal(walltimes(null).at(-1), '2d');
});
