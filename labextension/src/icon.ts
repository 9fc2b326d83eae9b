/** The panel's icon: nodes in a rack. */

import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M4 3h16a1 1 0 0 1 1 1v4a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1zm2 2v2h2V5zm4 .5v1h8v-1z" fill-rule="evenodd"/>
    <path d="M4 10h16a1 1 0 0 1 1 1v4a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1v-4a1 1 0 0 1 1-1zm2 2v2h2v-2zm4 .5v1h8v-1z" fill-rule="evenodd"/>
    <path d="M4 17h16a1 1 0 0 1 1 1v3a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1v-3a1 1 0 0 1 1-1zm2 1.5v2h2v-2zm4 .5v1h8v-1z" fill-rule="evenodd"/>
  </g>
</svg>`;

export const icon = new LabIcon({ name: 'hpcnb:rack', svgstr: SVG });
