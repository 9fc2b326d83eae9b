/** The item in the status bar: the clusters that live, and the least walltime that is left. */

import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import React from 'react';

import type { Model } from './model';
import { lives, MARKS, remaining } from './words';

export class StatusItem extends ReactWidget {
  constructor(
    private _model: Model,
    private _show: () => void
  ) {
    super();
    this.addClass('hpcnb-status');
  }

  protected override render(): JSX.Element {
    return (
      <UseSignal signal={this._model.changed}>
        {() => (
          <span onClick={this._show} title="HPC clusters">
            {said(this._model)}
          </span>
        )}
      </UseSignal>
    );
  }
}

/** Nothing without clusters, so that the bar stays as it was. */
function said(model: Model): string {
  const living = [...model.clusters.values()].filter(lives);
  return living
    .slice(0, 3)
    .map(({ state, spec, walltime_left }) => {
      const left = walltime_left === null ? '' : ` ${remaining(walltime_left)}`;
      return `${MARKS[state]} ${spec.name}${left}`;
    })
    .join('  ');
}
